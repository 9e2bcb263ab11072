"""SOP classes, roles and transfer syntaxes, from the presentation contexts that are negotiated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext

from dicom_node.conformance.document import Table
from dicom_node.dicom.header import ENHANCED_MR, LEGACY_ENHANCED_MR, MR_IMAGE
from dicom_node.domain.profile import SOP_CLASSES
from dicom_node.net.contexts import (
    STORAGE_CLASSES,
    TRANSFER_SYNTAXES,
    supported_contexts,
)
from dicom_node.net.proposals import proposals

_ANALYSED = frozenset({MR_IMAGE, ENHANCED_MR, LEGACY_ENHANCED_MR})
"""Classes of images that the analysis reads."""

SEPARATE = " / "
"""Between the transfer syntaxes of separate contexts of one class."""


@dataclass(frozen=True)
class Service:
    """A SOP class and the roles in which the node supports it."""

    uid: str
    scu: bool
    scp: bool

    @property
    def name(self) -> str:
        """Name in PS3.6."""
        return class_name(self.uid)


def class_name(uid: str) -> str:
    """Return the name of a SOP class: as the node's own tables give it, else as PS3.6 does."""
    return STORAGE_CLASSES.get(uid) or SOP_CLASSES.get(uid, (UID(uid).name,))[0]


def services() -> list[Service]:
    """Return every SOP class that is negotiated, in either direction, by UID."""
    scp = {str(cx.abstract_syntax) for cx in supported_contexts() if plays_scp(cx)}
    scu = {str(cx.abstract_syntax) for cx in supported_contexts() if plays_scu(cx)}
    for proposal in proposals():
        scu |= {str(cx.abstract_syntax) for cx in proposal.contexts}
    return [Service(uid, uid in scu, uid in scp) for uid in sorted(scu | scp, key=_by_number)]


def plays_scp(context: PresentationContext) -> bool:
    """Whether the node, as acceptor of this context, is SCP: so without role selection."""
    return context.scu_role is not False


def plays_scu(context: PresentationContext) -> bool:
    """Whether the node, as acceptor of this context, may be SCU (PS3.7 D.3.3.4)."""
    return bool(context.scp_role)


def overview() -> Table:
    """Return the network services in one table (Annex N: DIMSE services)."""
    rows = [(service.name, service.uid, service.scu, service.scp) for service in services()]
    return Table("network_services", "DIMSE services", ("SOP class", "UID", "SCU", "SCP"), _t(rows))


def content_and_transfer() -> Table:
    """Return what becomes of the objects of each storage class (Annex N: content and transfer)."""
    rows = []
    for service in services():
        if service.uid in STORAGE_CLASSES or service.uid in SOP_CLASSES:
            created = SOP_CLASSES[service.uid][1] if service.uid in SOP_CLASSES else ""
            read = _read_for(service) if service.scp else ""
            rows.append((service.name, service.scp, read or "kept", service.scu, created))
    columns = ("SOP class", "received", "received for", "sent", "created as")
    return Table("content_and_transfer", "Content and transfer", columns, _t(rows))


def _read_for(service: Service) -> str:
    if service.uid in _ANALYSED:
        return "analysis"
    return "a PSA value, where it tells one" if service.name.endswith("SR Storage") else ""


def accepted_contexts() -> Table:
    """Return the presentation contexts that the port accepts."""
    rows = [
        (
            class_name(str(cx.abstract_syntax)),
            str(cx.abstract_syntax),
            syntax_names(cx.transfer_syntax),
            _roles(cx),
        )
        for cx in supported_contexts()
    ]
    columns = ("abstract syntax", "UID", "transfer syntaxes", "role of the node")
    return Table("accepted_contexts", "Presentation contexts accepted", columns, _t(rows))


def proposed() -> Table:
    """Return the presentation contexts that the node proposes, by activity and class."""
    rows = []
    for proposal in proposals():
        by_class: dict[str, list[str]] = {}
        for context in proposal.contexts:
            syntaxes = by_class.setdefault(str(context.abstract_syntax), [])
            syntaxes.append(syntax_names(context.transfer_syntax))
        rows += [
            (proposal.activity, class_name(uid), uid, SEPARATE.join(syntaxes))
            for uid, syntaxes in by_class.items()
        ]
    columns = ("activity", "abstract syntax", "UID", "transfer syntaxes")
    return Table("proposed_contexts", "Presentation contexts proposed", columns, _t(rows))


def activities() -> Table:
    """Return for what the node opens associations."""
    rows = [(proposal.activity, proposal.when) for proposal in proposals()]
    return Table("activities", "Associations opened", ("activity", "when"), _t(rows))


def transfer_syntaxes() -> Table:
    """Return every transfer syntax that is negotiated, with its UID."""
    accepted = _syntaxes(supported_contexts())
    offered = _syntaxes(cx for proposal in proposals() for cx in proposal.contexts)
    rows = [
        (TRANSFER_SYNTAXES.get(uid, uid), UID(uid).name, uid, uid in accepted, uid in offered)
        for uid in dict.fromkeys([*accepted, *offered])
    ]
    columns = ("called here", "transfer syntax", "UID", "accepted", "proposed")
    return Table("transfer_syntaxes", "Transfer syntaxes", columns, _t(rows))


def syntax_names(syntaxes: Sequence[UID]) -> str:
    """Return the short names of transfer syntaxes, in order."""
    return "; ".join(TRANSFER_SYNTAXES.get(uid, UID(uid).name) for uid in syntaxes)


def _syntaxes(contexts: Iterable[PresentationContext]) -> dict[str, None]:
    return {str(syntax): None for context in contexts for syntax in context.transfer_syntax}


def _roles(context: PresentationContext) -> str:
    roles = (("SCP", plays_scp(context)), ("SCU", plays_scu(context)))
    return ", ".join(name for name, plays in roles if plays)


def _by_number(uid: str) -> tuple[int, ...]:
    return tuple(int(part) for part in uid.split("."))


def _t(rows: Sequence[tuple[str | bool, ...]]) -> tuple[tuple[str | bool, ...], ...]:
    return tuple(rows)
