"""A small PACS for the demo and the tests: takes objects, keeps them as files, sends studies.

It is no archive: it answers C-ECHO and C-STORE, files objects in a folder, counts what came
twice, answers with given statuses, can be stopped and started again on its port, and can send
back everything it receives ("a PACS that echoes").
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta, split_dataset

from dicom_node.domain.confirmation import PUSH_MODEL
from dicom_node.durable import ensure_dir, write_file
from dicom_node.errors import DeliveryError
from dicom_node.net.contexts import supported_contexts
from dicom_node.net.library import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    application_entity,
)
from dicom_node.net.limits import ServerLimits
from dicom_node.net.outcomes import InstanceStatus
from dicom_node.net.sender import Address, Destination, outgoing, send
from dicom_node.net.server import GuardedServer
from dicom_node.net.serving import bound_port, drain, open_server, serve_in_thread

log = logging.getLogger(__name__)
_END = None


@dataclass(frozen=True)
class Filed:
    """One object the stand-in holds."""

    path: Path
    study_uid: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    copies: int = 1
    """how often it came"""
    differing: int = 0
    """how many of the later copies had another data set, byte by byte"""


@dataclass
class _Statuses:
    """Statuses to answer with, by SOP class ("" for all); each list is used up, then success."""

    planned: dict[str, list[int]] = field(default_factory=dict)

    def next(self, sop_class: str) -> int:
        for key in (sop_class, ""):
            if self.planned.get(key):
                return self.planned[key].pop(0)
        return 0x0000


class PacsStandIn:
    """A C-ECHO and C-STORE SCP on loopback that files what it gets in ``folder``.

    Args:
        ae_title: its AE title; other called AE titles are rejected.
        folder: where objects are filed, as ``<Study UID>/<SOP Instance UID>.dcm``.
        port: 0 takes any free port at the first start and keeps it.
        echo_to: where everything received is sent back to; None: nowhere.
        sop_classes: SOP classes it takes; None: all that the node knows.
    """

    def __init__(
        self,
        ae_title: str,
        folder: Path,
        *,
        port: int = 0,
        echo_to: Destination | None = None,
        sop_classes: Iterable[str] | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.folder = folder
        self.port = port
        self.echo_to = echo_to
        self._sop_classes = None if sop_classes is None else set(sop_classes)
        self._statuses = _Statuses()
        self._filed: dict[str, Filed] = {}
        self._order: list[str] = []
        self._associations = 0
        self._lock = threading.Lock()
        self._server: GuardedServer | None = None
        self._threads: list[threading.Thread] = []
        self._to_echo: queue.Queue[Path | None] = queue.Queue()

    # switching

    def start(self) -> int:
        """Open the port and return it. What was filed before is still there."""
        entity = application_entity(self.ae_title)
        entity.require_called_aet = True
        entity.maximum_pdu_size = ServerLimits.pdu_bytes
        contexts = [cx for cx in supported_contexts() if str(cx.abstract_syntax) != PUSH_MODEL]
        if self._sop_classes is not None:
            contexts = [contexts[0]] + [
                cx for cx in contexts[1:] if str(cx.abstract_syntax) in self._sop_classes
            ]
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_REQUESTED, self._on_request),
        ]
        address = ("127.0.0.1", self.port)
        self._server = open_server(entity, address, handlers, ServerLimits(), contexts)
        self.port = bound_port(self._server)
        echo = threading.Thread(target=self._echo_loop, name="standin-echo", daemon=True)
        echo.start()
        self._threads = [serve_in_thread(self._server), echo]
        return self.port

    def stop(self, drain_s: float = 1.0) -> None:
        """Close the port; ``start`` opens the same one again."""
        if self._server is None:
            return
        self._server.shutdown()
        drain(self._server.connections, drain_s)
        self._to_echo.put(_END)
        for thread in self._threads:
            thread.join()
        self._server = None

    def __enter__(self) -> PacsStandIn:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def address(self) -> Address:
        """Where the stand-in listens."""
        return Address(self.ae_title, "127.0.0.1", self.port)

    # what it holds

    def filed(self, study_uid: str | None = None) -> list[Filed]:
        """Return what it holds, of one study or all, in order of arrival."""
        with self._lock:
            objects = [self._filed[uid] for uid in self._order]
        return [item for item in objects if study_uid in (None, item.study_uid)]

    @property
    def associations(self) -> int:
        """Number of associations requested so far."""
        return self._associations

    def answer_with(self, statuses: Sequence[int], sop_class_uid: str = "") -> None:
        """Answer the next C-STOREs (of one SOP class, or all) with these statuses.

        An object answered with a failure is not filed. After the last one: success again.
        """
        with self._lock:
            self._statuses.planned[sop_class_uid] = list(statuses)

    # sending

    def send(
        self, files: Sequence[Path], *, host: str, port: int, ae_title: str
    ) -> list[InstanceStatus]:
        """Send Part 10 files by C-STORE, bytes as they are.

        Raises:
            DeliveryError: a file was not taken; says which answer came.
        """
        return self.send_study(files, Address(ae_title, host, port))

    def send_study(self, source: Path | Sequence[Path], to: Destination) -> list[InstanceStatus]:
        """Send the files of a folder (or a list of files) on one association.

        Raises:
            DeliveryError: a file was not taken; says which answer came.
        """
        files = _files(source) if isinstance(source, Path) else list(source)
        statuses = send(to, [outgoing(path) for path in files], calling_ae=self.ae_title)
        failed = [status for status in statuses if status.outcome != "sent"]
        if failed:
            raise DeliveryError(
                f"{len(failed)} of {len(files)} objects were not taken: {failed[0].detail}",
                f"check that {to.ae_title} accepts {self.ae_title}",
            )
        return statuses

    # receiving

    def _on_request(self, _event: evt.Event) -> None:
        self._associations += 1

    def _on_store(self, event: evt.Event) -> int:
        request = cast(C_STORE, event.request)
        if request.DataSet is None:
            return 0xC000
        data = request.DataSet.getvalue()
        with self._lock:
            status = self._statuses.next(str(request.AffectedSOPClassUID))
        if status != 0x0000 and not 0xB000 <= status <= 0xBFFF:
            return status
        self._file(data, event)
        return status

    def _file(self, data: bytes, event: evt.Event) -> None:
        request = cast(C_STORE, event.request)
        syntax = UID(event.context.transfer_syntax)
        sop_class = UID(str(request.AffectedSOPClassUID))
        uid = UID(str(request.AffectedSOPInstanceUID))
        meta = _file_meta(sop_class, uid, syntax)
        header = _header(meta + data)
        path = self.folder / str(header.StudyInstanceUID) / f"{uid}.dcm"
        with self._lock:
            known = self._filed.get(uid)
            if known is None:
                ensure_dir(path.parent)
                write_file(path, [meta, data])
                self._order.append(uid)
                self._filed[uid] = Filed(
                    path,
                    str(header.StudyInstanceUID),
                    str(header.SeriesInstanceUID),
                    str(sop_class),
                    str(uid),
                    str(syntax),
                    str(event.assoc.requestor.ae_title).strip(),
                )
            else:
                path = known.path
                other = int(dataset_bytes(path) != data)
                self._filed[uid] = replace(
                    known, copies=known.copies + 1, differing=known.differing + other
                )
        if self.echo_to is not None:
            self._to_echo.put(path)

    def _echo_loop(self) -> None:
        while (path := self._to_echo.get()) is not _END:
            if self.echo_to is not None:
                for status in send(self.echo_to, [outgoing(path)], calling_ae=self.ae_title):
                    log.info("echoed", extra={"outcome": status.outcome.value})


def dataset_bytes(path: Path) -> bytes:
    """Return the data set of a Part 10 file as its bytes, file meta information left out."""
    _meta, offset = split_dataset(path)
    return path.read_bytes()[offset:]


def _file_meta(sop_class: UID, sop_instance: UID, syntax: UID) -> bytes:
    meta = create_file_meta(
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        transfer_syntax=syntax,
        implementation_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version=IMPLEMENTATION_VERSION_NAME,
    )
    buffer = DicomBytesIO()
    buffer.write(b"\x00" * 128 + b"DICM")
    write_file_meta_info(buffer, meta)
    return buffer.getvalue()


def _header(part10: bytes) -> Dataset:
    wanted = ["StudyInstanceUID", "SeriesInstanceUID"]
    return dcmread(DicomBytesIO(part10), specific_tags=wanted, stop_before_pixels=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if _is_part10(path))


def _is_part10(path: Path) -> bool:
    if not path.is_file() or path.name == "DICOMDIR":
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
