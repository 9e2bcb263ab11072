"""The DICOM ports: C-ECHO and C-STORE SCP (PS3.4 A and B) with access control.

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
from dicom_node.domain.confirmation import PUSH_MODEL
from dicom_node.domain.identity import is_uid
from dicom_node.domain.status import (
    CLASS_MISMATCH,
    INVALID_INSTANCE,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
)
from dicom_node.errors import ConfigError, NodeError
from dicom_node.flow.audit import Lives
from dicom_node.flow.peers import senders
from dicom_node.net.access import REJECTIONS, AccessList, Refusal, Requester, requester_of
from dicom_node.net.commitment_scp import CommitmentScp
from dicom_node.net.connections import Connections
from dicom_node.net.contexts import STORAGE_CLASSES, VERIFICATION, reporting_contexts
from dicom_node.net.library import application_entity
from dicom_node.net.limits import ServerLimits
from dicom_node.net.listening import Listener, cannot_listen, listeners
from dicom_node.net.refusals import RefusalLog, Refused
from dicom_node.net.server import Guard, GuardedServer, GuardedSocket, keep_alive
from dicom_node.net.serving import bound_port, drain, open_server, serve_in_thread
from dicom_node.net.stream import StorageStream, StoreRequest
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

    @property
    def study_uid(self) -> str:
        """Study Instance UID; empty where the instance was refused."""

    @property
    def patient_id(self) -> str:
        """Patient ID; empty where the instance was refused or has none."""


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


class Audits(Protocol):
    """Records for the audit trail; each call returns at once: ``dicom_node.flow.audit``."""

    def rejected(self, calling_ae: str, called_ae: str, address: str, reason: str) -> None:
        """Record an association that was rejected."""

    def received(
        self, association: Lives, source: tuple[str, str], sop_class_uid: str,
        study_uid: str, patient_id: str,
    ) -> None:  # fmt: skip
        """Record an instance; ``source``: calling AE title and address."""


class Scp:
    """Answers the events of the associations: who may come, and what becomes of an instance."""

    def __init__(
        self,
        access: AccessList,
        ingest: Accepts,
        refusals: RefusalLog,
        limits: ServerLimits,
        audit: Audits | None = None,
    ) -> None:
        self._access = access
        self._ingest = ingest
        self._refusals = refusals
        self._limits = limits
        self._audit = audit

    def handlers(self) -> list[evt.EventHandlerType]:
        """Return the handlers for the library's events."""
        return [
            (evt.EVT_REQUESTED, self.on_requested),
            (evt.EVT_ACCEPTED, self.on_accepted),
            (evt.EVT_ESTABLISHED, self.on_established),
            (evt.EVT_C_ECHO, self.on_echo),
            (evt.EVT_C_STORE, self.on_store),
        ]

    # negotiation

    def on_requested(self, event: evt.Event) -> None:
        """Refuse an association before it is negotiated, or let it pass."""
        who = requester_of(event.assoc)
        try:
            refusal = self._access.check(who) or self._over_limit(event.assoc, who)
            if refusal is None and not any(peer.may_send for peer in self._access.identify(who)):
                event.assoc.acceptor.supported_contexts = reporting_contexts()
        except Exception:
            # whatever went wrong, an unchecked peer does not come in
            log.exception("access check failed")
            refusal = Refusal.NODE_UNAVAILABLE
        if refusal is not None:
            _reject(event.assoc, refusal)
            self._tell(who, refusal, "")
        elif _storage_alone(event.assoc):
            reading = cast(GuardedSocket, event.assoc.dul.socket)
            reading.held = True  # what follows the acceptance is the stream's to read

    def on_established(self, event: evt.Event) -> None:
        """Let an association that carries storage alone be served by its own loop."""
        assoc = event.assoc
        if not cast(GuardedSocket, assoc.dul.socket).held:
            return
        who = requester_of(assoc)
        watch = cast(GuardedServer, assoc._server).watch(assoc)
        stream = StorageStream(assoc, self._limits, lambda request: self.store(request, who), watch)
        assoc._run_reactor = stream.run  # type: ignore[method-assign]
        # the library sets ``abort`` to one of these before and after each event
        assoc._abort_blocking = stream.abort  # type: ignore[method-assign]
        assoc._abort_nonblocking = stream.abort  # type: ignore[method-assign]

    def _over_limit(self, assoc: Association, who: Requester) -> Refusal | None:
        connections = cast(GuardedServer, assoc._server).connections
        too_many = connections.too_many(assoc, who.calling_ae)
        return Refusal.TOO_MANY_ASSOCIATIONS if too_many else None

    def on_accepted(self, event: evt.Event) -> None:
        """Record what an accepted peer proposed in vain."""
        accepted = {str(cx.abstract_syntax) for cx in event.assoc.accepted_contexts}
        in_vain = {str(cx.abstract_syntax) for cx in event.assoc.rejected_contexts} - accepted
        for sop_class in sorted(in_vain):
            known = sop_class in STORAGE_CLASSES or sop_class in (VERIFICATION, PUSH_MODEL)
            refusal = (
                Refusal.TRANSFER_SYNTAX_NOT_SUPPORTED if known else Refusal.SOP_CLASS_NOT_SUPPORTED
            )
            self._tell(requester_of(event.assoc), refusal, sop_class)

    def _tell(self, who: Requester, refusal: Refusal, detail: str) -> None:
        reason = _reason(refusal, detail)
        self._refusals.tell(Refused(who.address, reason, who.calling_ae, who.called_ae))
        if self._audit is not None and refusal in REJECTIONS:
            self._audit.rejected(who.calling_ae, who.called_ae, who.address, reason)

    def on_refused_connection(self, address: str, refusal: Refusal, detail: str) -> None:
        """Record a connection that ended before it asked for an association."""
        reason = _reason(refusal, detail)
        self._refusals.tell(Refused(address, reason))
        if self._audit is not None and refusal is Refusal.TLS_FAILED:
            self._audit.rejected("", "", address, reason)

    # services

    def on_echo(self, _event: evt.Event) -> int:
        """C-ECHO (PS3.4 A.4)."""
        return SUCCESS

    def on_store(self, event: evt.Event) -> Dataset:
        """C-STORE (PS3.4 B.2.1) of an association that carries other services too."""
        request = cast(C_STORE, event.request)
        data = request.DataSet
        asked = StoreRequest(
            str(event.context.abstract_syntax), str(event.context.transfer_syntax),
            str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID),
            None if data is None else data.getvalue(),
        )  # fmt: skip
        answer = self.store(asked, requester_of(event.assoc))
        keep_alive(event.assoc)
        return _response(*answer)

    def store(self, request: StoreRequest, who: Requester) -> tuple[int, str]:
        """Answer a C-STORE: the status tells whether the instance is safe. Never raises."""
        try:
            return self._store(request, who)
        except (NodeError, OSError):
            log.exception("instance could not be stored")
            return OUT_OF_RESOURCES, "storage unavailable"
        except Exception:
            log.exception("instance could not be processed")
            return PROCESSING_FAILURE, "processing failure"

    def _store(self, request: StoreRequest, who: Requester) -> tuple[int, str]:
        if not is_uid(request.sop_instance_uid):
            return INVALID_INSTANCE, "Affected SOP Instance UID is not a UID"
        if request.sop_class_uid != request.abstract_syntax:
            return CLASS_MISMATCH, "SOP Class differs from the presentation context"
        if request.data is None:
            return INVALID_INSTANCE, "no data set"
        answer = self._ingest.accept(
            dataset_bytes=request.data,
            transfer_syntax_uid=request.transfer_syntax,
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            calling_ae=who.calling_ae,
            called_ae=who.called_ae,
            address=who.address,
        )
        if self._audit is not None and answer.status == SUCCESS and who.association is not None:
            source = (who.calling_ae, who.address)
            self._audit.received(
                who.association, source, request.sop_class_uid, answer.study_uid, answer.patient_id
            )
        return answer.status, answer.comment


class Receiver:
    """The ports. ``start`` opens them, ``stop`` closes them and lets running associations finish.

    Args:
        config: AE title, addresses and ports to listen on (0: any free port), peers of the file.
        store: peers of the database, read again at least every second; takes the refusals.
        ingest: the receive path.
        clock: the time.
        audit: takes records of what came and who was rejected; None: nobody does.
    """

    server_class: type[GuardedServer] = GuardedServer

    def __init__(
        self,
        config: NodeConfig,
        store: Store,
        ingest: Accepts,
        clock: Clock,
        limits: ServerLimits | None = None,
        audit: Audits | None = None,
    ) -> None:
        self._config = config
        self._limits = limits or ServerLimits()
        self._access = AccessList(config.node.ae_title, lambda: senders(store, config), clock)
        self._refusals = RefusalLog(store, config.node.receiver_count)
        self._scp = Scp(self._access, ingest, self._refusals, self._limits, audit)
        self._commitment = CommitmentScp(self._access, store)
        self._connections = Connections(self._limits, self._access.is_source)
        self._running: list[tuple[GuardedServer, threading.Thread]] = []
        self.plain_port: int | None = None
        self.tls_port: int | None = None

    def start(self) -> int:
        """Open the ports; returns the plain one, or the TLS port where that is the only one.

        Raises:
            ConfigError: an address cannot be used, or plain DICOM is not allowed there.
        """
        wanted = listeners(self._config)
        servers = []
        try:
            for listener in wanted:
                servers.append(self._open(listener))
        except ConfigError:
            for server in servers:
                server.server_close()
            raise
        self._access.look()
        self._refusals.start()
        for listener, server in zip(wanted, servers, strict=True):
            if listener.context is None:
                self.plain_port = bound_port(server)
            else:
                self.tls_port = bound_port(server)
            self._running.append((server, serve_in_thread(server)))
        return bound_port(servers[0])

    def _open(self, listener: Listener) -> GuardedServer:
        entity = application_entity(self._config.node.ae_title)
        entity.maximum_pdu_size = self._limits.pdu_bytes
        entity.acse_timeout = self._limits.associate_s
        entity.dimse_timeout = self._limits.idle_s
        entity.network_timeout = self._limits.idle_s
        # the library counts connections, established or not; the server class counts better
        entity.maximum_associations = self._limits.connections * 2
        guard = Guard(self._connections, listener.context, self._scp.on_refused_connection)
        address = (listener.address, listener.port)
        try:
            handlers = self._scp.handlers() + self._commitment.handlers()
            return open_server(
                entity, address, handlers, self._limits, guard=guard, kind=self.server_class
            )
        except OSError as error:
            raise cannot_listen(listener, error) from error

    def stop(self, drain_s: float = 5.0) -> None:
        """Close the ports; running associations get ``drain_s`` to finish, then are ended."""
        if not self._running:
            return
        for server, _thread in self._running:
            server.shutdown()
        for _server, thread in self._running:
            thread.join()
        drain(self._connections, drain_s)
        self._refusals.close()
        self._running = []


def _reason(refusal: Refusal, detail: str) -> str:
    return f"{refusal}: {detail}" if detail else refusal.value


def _storage_alone(assoc: Association) -> bool:
    """Whether nothing but storage and verification can be agreed on."""
    offered = {cx.abstract_syntax for cx in cast(GuardedServer, assoc._server).offered}
    others = offered - STORAGE_CLASSES.keys() - {VERIFICATION}
    primitive = cast(A_ASSOCIATE, assoc.requestor.primitive)
    asked = {cx.abstract_syntax for cx in primitive.presentation_context_definition_list}
    return not asked & others


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
