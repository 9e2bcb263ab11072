"""An archive of pynetdicom's own making: storage, storage commitment, query; told how to behave."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.net.library import Inbox

PUSH = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STORAGE = (
    "1.2.840.10008.5.1.4.1.1.66.4",
    "1.2.840.10008.5.1.4.1.1.88.34",
    "1.2.840.10008.5.1.4.1.1.4",
)
NODE_AE = "PROSTATE_AI"
INSIST_S = 60.0


def _leave_answers(assoc: Association) -> None:
    """Let the library's loop take no answer that a report or request waits for."""
    assoc.dimse.get_msg = Inbox(assoc.dimse).get_msg  # type: ignore[method-assign]


@dataclass
class Archive:
    """A PACS on loopback. ``lost``: UID to failure reasons.

    ``answer``: same, separate, never; or insist: on the same association, and where that is lost,
    on others until the node takes the report.
    """

    answer: str = "same"
    action_status: int = 0
    offers: tuple[str, ...] = (PUSH,)
    roles: bool = True
    node_port: int = 0
    lost: dict[str, list[int]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    ae_title: str = "PACS"
    port: int = 0
    came: Counter[str] = field(default_factory=Counter)
    content: dict[str, set[bytes]] = field(default_factory=dict)
    requests: list[tuple[str, list[str]]] = field(default_factory=list)
    statuses: list[int | None] = field(default_factory=list)
    reports: list[Dataset] = field(default_factory=list)
    asked: int = 0
    _server: ThreadedAssociationServer | None = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> Archive:
        entity = AE(ae_title=self.ae_title)
        for uid in STORAGE:
            entity.add_supported_context(uid)
        for uid in self.offers:
            entity.add_supported_context(uid, scu_role=True, scp_role=True)
        handlers = [
            (evt.EVT_C_STORE, self._on_store), (evt.EVT_N_ACTION, self._on_action),
            (evt.EVT_C_FIND, self._on_find), (evt.EVT_N_EVENT_REPORT, self._on_report),
            (evt.EVT_ACCEPTED, lambda event: _leave_answers(event.assoc)),
        ]  # fmt: skip
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None
        self._server, self.port = server, server.server_address[1]
        return self

    def stop(self) -> None:
        for thread in self._threads:
            thread.join(60)
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _on_store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.came[uid] += 1
        self.content.setdefault(uid, set()).add(event.request.DataSet.getvalue())
        return 0

    def _on_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        assert asked.QueryRetrieveLevel == "IMAGE"
        uid = str(asked.SOPInstanceUID)
        self.requests.append((uid, [str(asked.StudyInstanceUID)]))
        if self.came[uid] and uid not in self.hidden:
            asked.SOPInstanceUID = uid
            yield 0xFF00, asked

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        asked = event.action_information
        uids = [str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence]
        self.requests.append((str(asked.TransactionUID), uids))
        if self.action_status:
            return self.action_status, None
        if self.answer != "never":
            assoc = None if self.answer == "separate" else event.assoc
            thread = threading.Thread(target=self.report, args=[asked, assoc])
            self._threads.append(thread)
            thread.start()
        return 0, None

    def report(self, asked: Dataset, assoc: object = None) -> int | None:
        """Send the N-EVENT-REPORT that answers a request; returns the status it met."""
        time.sleep(0.05)  # after the response to the request
        told = Dataset()
        told.TransactionUID = asked.TransactionUID
        kept, failed = [], []
        for item in asked.ReferencedSOPSequence:
            reasons = self.lost.get(str(item.ReferencedSOPInstanceUID), [])
            if reasons:
                item.FailureReason = reasons.pop(0)
            (failed if "FailureReason" in item else kept).append(item)
        if kept:
            told.ReferencedSOPSequence = kept
        if failed:
            told.FailedSOPSequence = failed
        status = self.send(told, 2 if failed else 1, assoc)
        self.statuses.append(status)
        end_s = time.monotonic() + INSIST_S
        while self.answer == "insist" and status is None and time.monotonic() < end_s:
            time.sleep(0.05)
            status = self.send(told, 2 if failed else 1)
            if status is not None:
                self.statuses.append(status)
        return status

    def send(self, told: Dataset, event_type: int, assoc: object = None) -> int | None:
        own = None
        if assoc is None:
            if not self._node_listens():
                return None
            entity = AE(ae_title=self.ae_title)
            entity.add_requested_context(PUSH)
            roles = [build_role(PUSH, scp_role=True)] if self.roles else None
            assoc = own = entity.associate(
                "127.0.0.1", self.node_port, ae_title=NODE_AE, ext_neg=roles
            )
            _leave_answers(assoc)
            if not assoc.is_established:
                return None
        try:
            answer, _ = assoc.send_n_event_report(told, event_type, PUSH, INSTANCE)
        except RuntimeError:
            return None  # the association is gone
        if own is not None:
            own.release()
        return int(answer.Status) if "Status" in answer else None

    def _node_listens(self) -> bool:
        """Whether the port is open: the library leaves a socket behind where it is not."""
        try:
            socket.create_connection(("127.0.0.1", self.node_port), 10).close()
        except OSError:
            return False
        return True

    def ask(self, references: list[tuple[str, str]], uid: str, *, action: int = 1) -> int | None:
        """Ask the node for commitment; returns the status of the N-ACTION."""
        asked = Dataset()
        asked.TransactionUID = uid
        asked.ReferencedSOPSequence = []
        for sop_class, sop_instance in references:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
            asked.ReferencedSOPSequence.append(item)
        if not self._node_listens():
            return None
        entity = AE(ae_title=self.ae_title)
        entity.add_requested_context(PUSH)
        assoc = entity.associate("127.0.0.1", self.node_port, ae_title=NODE_AE)
        _leave_answers(assoc)
        if not assoc.is_established:
            return None
        self.asked += 1
        answer, _ = assoc.send_n_action(asked, action, PUSH, INSTANCE)
        assoc.release()
        return int(answer.Status) if "Status" in answer else None

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        self.reports.append(event.event_information)
        return 0, None
