"""C-FIND SCU at instance level (PS3.4 C.4.1): whether an archive shows an object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.config import TlsSection
from dicom_node.domain.confirmation import STUDY_ROOT_FIND
from dicom_node.net.contexts import UNCOMPRESSED
from dicom_node.net.limits import SenderLimits
from dicom_node.net.sender import Destination, associate

SUCCESS = 0x0000
PENDING = frozenset({0xFF00, 0xFF01})  # PS3.4 C.4.1.1.4


@dataclass(frozen=True)
class Wanted:
    """One instance, by its unique keys (PS3.4 C.6.2.1)."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class Shown:
    """What the archive answered. ``found`` None: it did not answer the question."""

    found: bool | None
    detail: str = ""


def find_instances(
    peer: Destination, wanted: Sequence[Wanted], *, calling_ae: str, tls: TlsSection | None = None
) -> list[Shown]:
    """Ask for each instance on one association; the answers are in the order of ``wanted``."""
    contexts = [build_context(STUDY_ROOT_FIND, list(UNCOMPRESSED))]
    with associate(peer, contexts, calling_ae, SenderLimits(), tls=tls) as (assoc, problem):
        if assoc is None or not assoc.is_established:
            return [Shown(None, problem)] * len(wanted)
        return [_find(assoc, one) for one in wanted]


def _find(assoc: Association, wanted: Wanted) -> Shown:
    keys = Dataset()
    keys.QueryRetrieveLevel = "IMAGE"
    keys.StudyInstanceUID = UID(wanted.study_uid)
    keys.SeriesInstanceUID = UID(wanted.series_uid)
    keys.SOPInstanceUID = UID(wanted.sop_instance_uid)
    found = False
    try:
        for status, match in assoc.send_c_find(keys, STUDY_ROOT_FIND):
            code = status.get("Status")
            if code is None:
                return Shown(None, "no answer to the query")
            if int(code) in PENDING:
                # an archive that ignores a key must not confirm by another object
                uid = match.get("SOPInstanceUID") if match is not None else None
                found = found or str(uid) == wanted.sop_instance_uid
            elif int(code) != SUCCESS:
                return Shown(None, f"query refused with status 0x{int(code):04X}")
    except (RuntimeError, ValueError) as error:
        return Shown(None, f"not asked: {type(error).__name__}")
    return Shown(found)
