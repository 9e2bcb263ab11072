"""C-STORE and C-ECHO SCU (PS3.4 A and B): one association, stored bytes sent as they are."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dsutils import split_dataset
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.config import TlsSection
from dicom_node.errors import DeliveryError, NodeError
from dicom_node.net.advice import advice
from dicom_node.net.contexts import (
    IMPLICIT_VR_LITTLE_ENDIAN,
    UNCOMPRESSED,
    VERIFICATION,
    proposed_contexts,
)
from dicom_node.net.library import Entity, application_entity
from dicom_node.net.limits import SenderLimits
from dicom_node.net.outcomes import CLASS_NOT_TAKEN, InstanceStatus, Outcome, classify
from dicom_node.net.tls import secure_peer

log = logging.getLogger(__name__)

# result of a presentation context in A-ASSOCIATE-AC (PS3.8 9.3.3.2)
_ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
_TRANSFER_SYNTAXES_NOT_SUPPORTED = 4
_CONTEXT_LIMIT = 128  # context IDs are odd numbers up to 255


class Destination(Protocol):
    """Where to send: a peer of the configuration, or anything with these five."""

    @property
    def ae_title(self) -> str:
        """AE title of the peer."""

    @property
    def host(self) -> str:
        """Host name or address."""

    @property
    def port(self) -> int | None:
        """DICOM port."""

    @property
    def tls(self) -> bool:
        """Whether it is spoken to over TLS."""

    @property
    def identities(self) -> tuple[str, ...]:
        """What its certificate must bear one of: names, addresses, ``sha256:FINGERPRINT``."""


@dataclass(frozen=True)
class Address:
    """A destination that is no configured peer."""

    ae_title: str
    host: str
    port: int
    tls: bool = False

    @property
    def identities(self) -> tuple[str, ...]:
        """The host alone."""
        return (self.host.lower(),)


@dataclass(frozen=True)
class Outgoing:
    """One stored Part 10 file to send."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    sha256: str | None = None
    """of the whole file, where it was kept: other bytes are not sent"""


@dataclass(frozen=True)
class EchoResult:
    """What became of a C-ECHO. ``problem`` and ``advice`` are the parts of ``message``.

    ``associated``: the peer took the association, whatever it answered then.
    """

    ok: bool
    message: str
    associated: bool = True
    problem: str = ""
    advice: str = ""


def outgoing(path: Path) -> Outgoing:
    """Describe a Part 10 file from its file meta information.

    Raises:
        DeliveryError: not a readable Part 10 file.
    """
    meta = _meta(path)
    return Outgoing(path, str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID))


@dataclass(frozen=True)
class Negotiated:
    """What an association said of SOP classes; what it left open stands in neither.

    ``syntaxes``: SOP class and transfer syntax of each accepted context.
    """

    accepted: frozenset[str]
    refused: frozenset[str]
    syntaxes: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Inquiry:
    """SOP classes to ask for beside what is sent, and who is told what the peer answered."""

    classes: Sequence[str]
    tell: Callable[[Negotiated], None]


def send(
    peer: Destination,
    objects: Sequence[Outgoing],
    *,
    calling_ae: str,
    limits: SenderLimits | None = None,
    tls: TlsSection | None = None,
) -> list[InstanceStatus]:
    """Send ``objects`` in their order on one association; one status for each, same order.

    ``tls``: certificate and authorities of the node, for a peer that is spoken to over TLS.

    Never raises for what the peer or the network does: that is in the statuses. What could not
    be tried because the association ended is transient.
    """
    return list(send_each(peer, objects, calling_ae=calling_ae, limits=limits, tls=tls))


def send_each(
    peer: Destination,
    objects: Sequence[Outgoing],
    *,
    calling_ae: str,
    limits: SenderLimits | None = None,
    inquiry: Inquiry | None = None,
    tls: TlsSection | None = None,
) -> Generator[InstanceStatus, None, None]:
    """As ``send``, but yields each status as soon as it is known.

    ``inquiry`` asks what else the peer takes; it is answered before anything is sent. Closing the
    generator ends the association; the rest is then not sent.
    """
    limits = limits or SenderLimits()
    checked = [_checked_syntax(item) for item in objects]
    wanted = [
        (item.sop_class_uid, syntax)
        for item, (syntax, _) in zip(objects, checked, strict=True)
        if syntax
    ]
    also = inquiry.classes if inquiry else ()
    contexts = proposed_contexts(wanted, also)[:_CONTEXT_LIMIT]
    with associate(peer, contexts, calling_ae, limits, tls=tls) as (assoc, problem):
        if inquiry and assoc is not None and (answer := negotiated(assoc)):
            inquiry.tell(answer)
        for item, (syntax, defect) in zip(objects, checked, strict=True):
            if defect:
                yield _status(item, Outcome.PERMANENT, defect)
            else:
                yield _send_one(assoc, item, syntax, problem, limits)


def negotiated(assoc: Association) -> Negotiated | None:
    """Return what the peer answered to the proposed classes; None where it did not answer."""
    if not assoc.accepted_contexts and not assoc.rejected_contexts:
        return None
    accepted = {str(context.abstract_syntax) for context in assoc.accepted_contexts}
    refused = {
        str(context.abstract_syntax)
        for context in assoc.rejected_contexts
        if context.result in (_ABSTRACT_SYNTAX_NOT_SUPPORTED, _TRANSFER_SYNTAXES_NOT_SUPPORTED)
    }
    syntaxes = {
        (str(context.abstract_syntax), str(context.transfer_syntax[0]))
        for context in assoc.accepted_contexts
    }
    return Negotiated(frozenset(accepted), frozenset(refused - accepted), frozenset(syntaxes))


def echo(
    peer: Destination, *, calling_ae: str,
    limits: SenderLimits | None = None, tls: TlsSection | None = None,
) -> EchoResult:  # fmt: skip
    """Verify the connection to a peer (PS3.4 A)."""
    limits = limits or SenderLimits()
    contexts = [build_context(VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN])]
    with associate(peer, contexts, calling_ae, limits, tls=tls) as (assoc, problem):
        where = f"{peer.ae_title} at {peer.host}" + (f":{peer.port}" if peer.port else "")
        if assoc is None or not assoc.is_established:
            told = advice(problem, peer.host, peer.port, peer.ae_title, calling_ae)
            message = f"no echo from {where}: {problem}{'; ' * bool(told)}{told}"
            # no context of it accepted: there was an answer, and the answer was no
            refused = assoc is not None and bool(assoc.rejected_contexts)
            return EchoResult(False, message, refused, problem, told)
        try:
            response = assoc.send_c_echo()
        except (RuntimeError, ValueError) as error:
            return EchoResult(False, f"no echo from {where}: {error}")
        status = response.get("Status")
    if status is None:
        return EchoResult(False, f"no echo from {where}: the peer did not answer")
    if status != 0:
        return EchoResult(False, f"{where} answered the echo with status 0x{status:04X}")
    return EchoResult(True, f"{where} answered the echo")


@contextmanager
def associate(
    peer: Destination,
    contexts: list[PresentationContext],
    calling_ae: str,
    limits: SenderLimits,
    *,
    tls: TlsSection | None = None,
    handlers: Sequence[evt.EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[tuple[Association | None, str]]:
    """Open an association and end it. Yields it, or None, and what is wrong in plain words.

    ``tls``: certificates for a peer that wants TLS. ``handlers``: for what the peer asks on it;
    ``roles``: those this side takes (PS3.7 D.3.3.4).
    """
    if not peer.port or not contexts:
        yield (
            None,
            ""
            if peer.port
            else "the peer has no port; add it again with --port, or set its port in the file",
        )
        return
    try:
        entity = _entity(peer, calling_ae, limits, tls)
        assoc = entity.associate(
            peer.host,
            peer.port,
            contexts=contexts,
            ae_title=peer.ae_title,
            max_pdu=limits.pdu_bytes,
            ext_neg=list(roles) or None,
            evt_handlers=list(handlers) or None,
        )
    except NodeError as error:  # never in the clear instead
        yield None, str(error)
        return
    except OSError as error:
        yield None, f"host cannot be found ({error.strerror or error}); check its name"
        return
    try:
        yield assoc, _problem(assoc, entity)
    finally:
        if assoc.is_established:
            assoc.release()


def _entity(
    peer: Destination, calling_ae: str, limits: SenderLimits, tls: TlsSection | None
) -> Entity:
    entity = application_entity(calling_ae)
    entity.connection_timeout = limits.connect_s
    entity.acse_timeout = limits.associate_s
    entity.dimse_timeout = limits.answer_s
    entity.stall_s = limits.stall_s
    entity.network_timeout = None  # the bounds of each operation hold; ours is never idle
    entity.secure = secure_peer(tls, peer.host, peer.identities) if peer.tls else None
    return entity


def _problem(assoc: Association, entity: Entity) -> str:
    """Say in plain words why an association does not stand; empty where it does."""
    if assoc.is_established:
        return ""
    if entity.rejection:
        return f"association rejected: {entity.rejection}"
    if assoc.rejected_contexts:
        return "the peer takes none of the offered object types"
    if entity.problem and entity.secure is not None:
        return f"no TLS connection: {entity.problem}"
    if assoc.is_aborted and assoc.acceptor.primitive is None and assoc.dul.socket is None:
        return "cannot connect"
    return "cannot connect, or no answer to the association request in time"


def _send_one(
    assoc: Association | None, item: Outgoing, syntax: str, problem: str, limits: SenderLimits
) -> InstanceStatus:
    if assoc is None:
        return _status(item, Outcome.TRANSIENT, problem)
    accepted = {
        str(cx.transfer_syntax[0])
        for cx in assoc.accepted_contexts
        if cx.abstract_syntax == item.sop_class_uid
    }
    convertible = syntax in UNCOMPRESSED and IMPLICIT_VR_LITTLE_ENDIAN in accepted
    if syntax not in accepted and not convertible and assoc.rejected_contexts:
        return _not_negotiated(assoc, item)
    if not assoc.is_established:
        return _status(item, Outcome.TRANSIENT, problem or "the association ended")
    try:
        return _store(assoc, item, as_stored=syntax in accepted, limits=limits)
    except (RuntimeError, ValueError, AttributeError, OSError) as error:
        log.warning("object could not be sent", extra={"error": type(error).__name__})
        return _status(item, Outcome.TRANSIENT, f"not sent: {type(error).__name__}")


def _store(
    assoc: Association, item: Outgoing, *, as_stored: bool, limits: SenderLimits
) -> InstanceStatus:
    assoc.dimse_timeout = limits.store_s(item.path.stat().st_size)
    # a path is sent as its stored bytes; a data set is encoded in the accepted syntax, which for
    # one library version always gives the same bytes
    content = item.path if as_stored else dcmread(item.path)
    response = assoc.send_c_store(content)
    code = response.get("Status")
    if code is None:
        # the library may not know yet that the peer is gone, and would wait for the next answer
        assoc.abort()
        return _status(item, Outcome.TRANSIENT, "no answer to the C-STORE")
    outcome, meaning = classify(int(code))
    comment = str(response.get("ErrorComment", "") or "")
    detail = f"{meaning}: {comment}" if meaning and comment else meaning
    not_taken = int(code) in CLASS_NOT_TAKEN
    return InstanceStatus(item.sop_instance_uid, outcome, int(code), detail, not_taken)


def _not_negotiated(assoc: Association, item: Outgoing) -> InstanceStatus:
    results = {
        cx.result for cx in assoc.rejected_contexts if cx.abstract_syntax == item.sop_class_uid
    }
    name = UID(item.sop_class_uid).name
    if _ABSTRACT_SYNTAX_NOT_SUPPORTED in results:
        detail = f"the peer does not take {name}"
    elif _TRANSFER_SYNTAXES_NOT_SUPPORTED in results:
        detail = f"the peer takes {name} in no offered encoding"
    else:
        detail = f"the peer rejected {name} without a reason"
        return _status(item, Outcome.UNKNOWN, detail)
    return InstanceStatus(item.sop_instance_uid, Outcome.PERMANENT, None, detail, not_taken=True)


def _status(item: Outgoing, outcome: Outcome, detail: str) -> InstanceStatus:
    return InstanceStatus(item.sop_instance_uid, outcome, None, detail)


def _checked_syntax(item: Outgoing) -> tuple[str, str]:
    """Return the transfer syntax of a file and, where it is not what was stored, what is wrong."""
    try:
        meta = _meta(item.path)
        content = item.path.read_bytes() if item.sha256 is not None else b""
    except (DeliveryError, OSError) as error:
        return "", str(error)
    if str(meta.MediaStorageSOPInstanceUID) != item.sop_instance_uid:
        return "", "the stored file holds another object; run `dicom-node recover`"
    if item.sha256 is not None and hashlib.sha256(content).hexdigest() != item.sha256:
        return "", "the stored file was changed; check the disk"
    return str(meta.TransferSyntaxUID), ""


def _meta(path: Path) -> Dataset:
    try:
        meta, _offset = split_dataset(path)
        _ = (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError, ValueError) as error:
        raise DeliveryError(
            f"the stored file cannot be read ({type(error).__name__})", "check the disk"
        ) from error
    return meta
