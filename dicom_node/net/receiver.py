"""The DICOM port: C-ECHO and C-STORE SCP (PS3.4 A and B) with access control.

Everything about one instance happens in ``Ingest.accept``: what is answered here is its answer.
The data set is handed over as the bytes that came, not decoded.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol, cast

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.clock import Clock
from dicom_node.config import NodeConfig
from dicom_node.domain.identity import is_uid
from dicom_node.domain.status import (
    CLASS_MISMATCH,
    INVALID_INSTANCE,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
)
from dicom_node.errors import ConfigError, NodeError
from dicom_node.flow.peers import all_peers
from dicom_node.net.access import REJECTIONS, AccessList, Refusal, Requester
from dicom_node.net.contexts import STORAGE_CLASSES, VERIFICATION
from dicom_node.net.library import application_entity
from dicom_node.net.limits import ServerLimits
from dicom_node.net.server import (
    GuardedServer,
    bound_port,
    keep_alive,
    open_server,
    serve_in_thread,
)
from dicom_node.store.store import Store

log = logging.getLogger(__name__)

_COMMENT_CHARACTERS = 64  # VR LO


class Answer(Protocol):
    """DIMSE status of a C-STORE and its comment."""

    @property
    def status(self) -> int:
        """DIMSE status (PS3.4 B.2.3)."""

    @property
    def comment(self) -> str:
        """Plain words; empty where there is nothing to say."""


class Accepts(Protocol):
    """The receive path: ``dicom_node.flow.ingest.Ingest``."""

    def accept(
        self,
        *,
        dataset_bytes: bytes,
        transfer_syntax_uid: str,
        sop_class_uid: str,
        sop_instance_uid: str,
        calling_ae: str,
        called_ae: str,
        address: str,
    ) -> Answer:
        """Store one instance; the answer is given only when it is durable."""


class Refusals(Protocol):
    """Keeps who was refused: ``dicom_node.store.store.Store``."""

    def record_refusal(self, calling_ae: str, called_ae: str, address: str, reason: str) -> None:
        """Count a refused requester."""


class Scp:
    """Answers the events of the associations: who may come, and what becomes of an instance."""

    def __init__(
        self, access: AccessList, ingest: Accepts, refusals: Refusals, limits: ServerLimits
    ) -> None:
        self._access = access
        self._ingest = ingest
        self._refusals = refusals
        self._limits = limits

    def handlers(self) -> list[evt.EventHandlerType]:
        """Return the handlers for the library's events."""
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_ACCEPTED, self.on_accepted),
            (evt.EVT_C_ECHO, self.on_echo),
            (evt.EVT_C_STORE, self.on_store),
        ]

    # negotiation

    def on_requested(self, event: evt.Event) -> None:
        """Refuse an association before it is negotiated, or let it pass."""
        who = _requester(event.assoc)
        try:
            refusal = self._access.check(who) or self._over_limit(event.assoc)
        except Exception:
            # whatever went wrong, an unchecked peer does not come in
            log.exception("access check failed")
            refusal = Refusal.NODE_UNAVAILABLE
        if refusal is not None:
            _reject(event.assoc, refusal)
            self._tell(who, refusal, "")

    def _over_limit(self, assoc: Association) -> Refusal | None:
        server = cast(GuardedServer, assoc._server)
        full = len(server.associations()) >= self._limits.associations
        return Refusal.TOO_MANY_ASSOCIATIONS if full else None

    def on_accepted(self, event: evt.Event) -> None:
        """Record what an accepted peer proposed in vain."""
        accepted = {str(cx.abstract_syntax) for cx in event.assoc.accepted_contexts}
        in_vain = {str(cx.abstract_syntax) for cx in event.assoc.rejected_contexts} - accepted
        for sop_class in sorted(in_vain):
            known = sop_class in STORAGE_CLASSES or sop_class == VERIFICATION
            refusal = (
                Refusal.TRANSFER_SYNTAX_NOT_SUPPORTED if known else Refusal.SOP_CLASS_NOT_SUPPORTED
            )
            self._tell(_requester(event.assoc), refusal, sop_class)

    def _tell(self, who: Requester, refusal: Refusal, detail: str) -> None:
        log.warning("refused", extra={"reason": refusal.value, "address": who.address})
        try:
            reason = f"{refusal}: {detail}" if detail else refusal.value
            self._refusals.record_refusal(who.calling_ae, who.called_ae, who.address, reason)
        except Exception:
            log.exception("refusal could not be recorded")

    # services

    def on_echo(self, _event: evt.Event) -> int:
        """C-ECHO (PS3.4 A.4)."""
        return SUCCESS

    def on_store(self, event: evt.Event) -> Dataset:
        """C-STORE (PS3.4 B.2.1): the status tells whether the instance is safe."""
        try:
            status, comment = self._store(event)
        except (NodeError, OSError):
            log.exception("instance could not be stored")
            status, comment = OUT_OF_RESOURCES, "storage unavailable"
        except Exception:
            log.exception("instance could not be processed")
            status, comment = PROCESSING_FAILURE, "processing failure"
        keep_alive(event.assoc)
        return _response(status, comment)

    def _store(self, event: evt.Event) -> tuple[int, str]:
        request = cast(C_STORE, event.request)
        sop_class = str(request.AffectedSOPClassUID)
        sop_instance = str(request.AffectedSOPInstanceUID)
        if not is_uid(sop_instance):
            return INVALID_INSTANCE, "Affected SOP Instance UID is not a UID"
        if sop_class != str(event.context.abstract_syntax):
            return CLASS_MISMATCH, "SOP Class differs from the presentation context"
        if request.DataSet is None:
            return INVALID_INSTANCE, "no data set"
        who = _requester(event.assoc)
        answer = self._ingest.accept(
            dataset_bytes=request.DataSet.getvalue(),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            sop_class_uid=sop_class,
            sop_instance_uid=sop_instance,
            calling_ae=who.calling_ae,
            called_ae=who.called_ae,
            address=who.address,
        )
        return answer.status, answer.comment


class Receiver:
    """The port. ``start`` opens it, ``stop`` closes it and lets running associations finish.

    Args:
        config: AE title, address and port to listen on (0: any free port), peers of the file.
        store: peers of the database, read again at least every second; takes the refusals.
        ingest: the receive path.
        clock: the time.
    """

    def __init__(
        self,
        config: NodeConfig,
        store: Store,
        ingest: Accepts,
        clock: Clock,
        limits: ServerLimits | None = None,
    ) -> None:
        self._node = config.node
        self._limits = limits or ServerLimits()
        access = AccessList(
            config.node.ae_title, lambda: [entry.peer for entry in all_peers(store, config)], clock
        )
        self._scp = Scp(access, ingest, store, self._limits)
        self._server: GuardedServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Open the port and return it.

        Raises:
            ConfigError: the address cannot be used.
        """
        entity = application_entity(self._node.ae_title)
        entity.maximum_pdu_size = self._limits.pdu_bytes
        entity.acse_timeout = self._limits.associate_s
        entity.dimse_timeout = self._limits.idle_s
        entity.network_timeout = self._limits.idle_s
        # the library counts connections, established or not; the server class counts better
        entity.maximum_associations = self._limits.connections * 2
        address = (self._node.bind, self._node.port)
        try:
            server = open_server(entity, address, self._scp.handlers(), self._limits)
        except OSError as error:
            where = f"{address[0]}:{address[1]}"
            raise ConfigError(
                f"cannot listen on {where}: {error.strerror or error}",
                "choose another address or port, or stop the program that uses it",
            ) from error
        self._server, self._thread = server, serve_in_thread(server)
        return bound_port(server)

    def stop(self, drain_s: float = 5.0) -> None:
        """Close the port; running associations get ``drain_s`` to finish, then are ended."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.drain(drain_s)
        self._server = self._thread = None


def _requester(assoc: Association) -> Requester:
    primitive = cast(A_ASSOCIATE, assoc.requestor.primitive)
    return Requester(
        calling_ae=str(primitive.calling_ae_title).strip(" "),
        called_ae=str(primitive.called_ae_title).strip(" "),
        address=str(assoc.requestor.address),
    )


def _reject(assoc: Association, refusal: Refusal) -> None:
    assoc.acse.send_reject(*REJECTIONS[refusal])
    assoc.is_rejected = True
    assoc.kill()  # returns when the answer is out and the connection is closed


def _response(status: int, comment: str) -> Dataset:
    response = Dataset()
    response.Status = status
    if comment and status != SUCCESS:
        response.ErrorComment = comment[:_COMMENT_CHARACTERS]
    return response
