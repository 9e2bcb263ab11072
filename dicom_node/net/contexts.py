"""What the node takes over the network: SOP classes and transfer syntaxes, as tables.

The conformance statement is generated from these tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.domain.confirmation import PUSH_MODEL, SERVICES
from dicom_node.domain.profile import SOP_CLASSES

VERIFICATION = "1.2.840.10008.1.1"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"

STORAGE_CLASSES: dict[str, str] = {
    MR_IMAGE: "MR Image Storage",
    "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR Image Storage",
    "1.2.840.10008.5.1.4.1.1.4.3": "Enhanced MR Color Image Storage",
    "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR Image Storage",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.30": "Parametric Map Storage",
    "1.2.840.10008.5.1.4.1.1.88.11": "Basic Text SR Storage",
    "1.2.840.10008.5.1.4.1.1.88.22": "Enhanced SR Storage",
    "1.2.840.10008.5.1.4.1.1.88.33": "Comprehensive SR Storage",
    "1.2.840.10008.5.1.4.1.1.88.34": "Comprehensive 3D SR Storage",
    "1.2.840.10008.5.1.4.1.1.88.59": "Key Object Selection Document Storage",
    "1.2.840.10008.5.1.4.1.1.11.1": "Grayscale Softcopy Presentation State Storage",
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.7.1": "Multi-frame Single Bit Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture Image Storage",
    "1.2.840.10008.5.1.4.1.1.104.1": "Encapsulated PDF Storage",
}
"""Storage SOP classes accepted (PS3.4 B.5)."""

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

TRANSFER_SYNTAXES: dict[str, str] = {
    EXPLICIT_VR_LITTLE_ENDIAN: "Explicit VR Little Endian",
    IMPLICIT_VR_LITTLE_ENDIAN: "Implicit VR Little Endian",
    "1.2.840.10008.1.2.5": "RLE Lossless",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless, Process 14",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, Process 14, Selection Value 1",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless Only",
}
"""Transfer syntaxes accepted, the wished-for first. Deflate is left out: a small data set can
inflate without bound. Lossy ones are left out: measurements need the acquired values."""


def supported_contexts() -> list[PresentationContext]:
    """Return the presentation contexts of the port: Verification and the storage classes."""
    contexts = [build_context(VERIFICATION, list(UNCOMPRESSED))]
    contexts += [build_context(UID(sop), list(TRANSFER_SYNTAXES)) for sop in STORAGE_CLASSES]
    return [*contexts, commitment_context()]


def examined_contexts() -> list[PresentationContext]:
    """Return what an examination of a peer proposes: each class of results in each encoding.

    One context for each encoding, so that the answer tells all of them (PS3.8 9.3.3.2 lets the
    peer name one of a context); then the services that confirm.
    """
    results = [
        build_context(UID(sop_class), [syntax])
        for sop_class in SOP_CLASSES
        for syntax in UNCOMPRESSED
    ]
    return results + [build_context(UID(uid), list(UNCOMPRESSED)) for uid in SERVICES]


def commitment_context() -> PresentationContext:
    """Return the context for storage commitment, in both roles.

    A peer that asks this node for commitment is SCU; one that reports on what this node asked
    for opens an association as SCP (PS3.4 J.3.3, PS3.7 D.3.3.4).
    """
    context = build_context(PUSH_MODEL, list(UNCOMPRESSED))
    context.scu_role = context.scp_role = True
    return context


def reporting_contexts() -> list[PresentationContext]:
    """Return what is offered to a peer that gets results but may not send images."""
    return [build_context(VERIFICATION, list(UNCOMPRESSED)), commitment_context()]


def proposed_contexts(
    objects: Sequence[tuple[str, str]], also: Sequence[str] = ()
) -> list[PresentationContext]:
    """Return the contexts to propose for ``objects``: (SOP class, stored transfer syntax).

    ``also``: SOP classes of which only is asked whether the peer takes them.

    One context for each stored syntax alone, so that the peer cannot choose another and the
    stored bytes can go out unchanged; then Implicit VR Little Endian as the fall-back, which
    every peer takes (PS3.5 10.1). Compressed objects go only as they are.
    """
    wanted = list(dict.fromkeys(objects))
    uncompressed = [(sop, IMPLICIT_VR_LITTLE_ENDIAN) for sop, ts in wanted if ts in UNCOMPRESSED]
    pairs = dict.fromkeys(wanted + uncompressed)
    contexts = [build_context(UID(sop), [syntax]) for sop, syntax in pairs]
    known = {sop for sop, _ in pairs}
    asked = [build_context(UID(sop), list(UNCOMPRESSED)) for sop in also if sop not in known]
    return contexts + asked
