"""What a peer takes: SOP classes asked for on an association that sends nothing."""

from __future__ import annotations

from collections.abc import Sequence

from pynetdicom.presentation import PresentationContext

from dicom_node.config import TlsSection
from dicom_node.errors import DeliveryError
from dicom_node.net.contexts import proposed_contexts
from dicom_node.net.limits import SenderLimits
from dicom_node.net.sender import Destination, Negotiated, associate, negotiated


def probe(
    peer: Destination, classes: Sequence[str], *, calling_ae: str, tls: TlsSection | None = None
) -> Negotiated:
    """Ask a peer which SOP classes it takes, in whatever encoding it chooses.

    Raises:
        DeliveryError: the peer did not answer the association request.
    """
    return negotiate(peer, proposed_contexts((), classes), calling_ae=calling_ae, tls=tls)


def negotiate(
    peer: Destination, contexts: list[PresentationContext], *, calling_ae: str,
    tls: TlsSection | None = None,
) -> Negotiated:  # fmt: skip
    """Ask a peer which presentation contexts it takes.

    Raises:
        DeliveryError: the peer did not answer the association request.
    """
    with associate(peer, contexts, calling_ae, SenderLimits(), tls=tls) as (assoc, problem):
        answer = negotiated(assoc) if assoc is not None else None
    if answer is None:
        raise DeliveryError(
            f"no answer from {peer.ae_title} at {peer.host}:{peer.port}: {problem}",
            "see that it runs, and that it knows the AE title of this node",
        )
    return answer
