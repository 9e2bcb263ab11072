"""The spool: received data sets as Part 10 files, byte for byte as they came.

A file carries all that its database row needs: the source of the instance stands in the private
information of the file meta header. Names come from digests, never from the wire:
``spool/<2>/<sha256 of study UID>/<sha256 of SOP UID>.<16 of its content>.dcm``.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError

from dicom_node import __version__
from dicom_node.dicom.records import InstanceHeader
from dicom_node.domain.identity import Identity
from dicom_node.domain.reasons import Reason
from dicom_node.errors import InputProblem
from dicom_node.results.equipment import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, uid_of
from dicom_node.store.rows import InstanceRow

SPOOL = "spool"
RESULTS = "results"
JOURNAL = "journal"
PREAMBLE_BYTES = 132
PRIVATE_CREATOR_UID = uid_of("private information", "source of an instance")
"""PS3.10 7.1, (0002,0100): who defined the private information in the file meta header."""
_MAX_META_BYTES = 64 * 1024

IMAGE_CLASSES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.4",  # MR Image
        "1.2.840.10008.5.1.4.1.1.4.1",  # Enhanced MR Image
        "1.2.840.10008.5.1.4.1.1.4.4",  # Legacy Converted Enhanced MR Image
    }
)
"""What opens a revision; everything else is stored beside it."""


@dataclass(frozen=True)
class Source:
    """Where an instance came from, and when (epoch seconds)."""

    calling_ae: str = ""
    called_ae: str = ""
    address: str = ""
    received_at_s: float = 0.0


@dataclass(frozen=True)
class Stored:
    """A stored file, read back without its data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source: Source
    dataset_offset: int


def spool_path(
    study_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, dataset_digest: str
) -> str:
    """Path of an instance relative to the data folder."""
    content = hashlib.sha256(f"{transfer_syntax_uid} {dataset_digest}".encode()).hexdigest()
    study = hashlib.sha256(study_uid.encode()).hexdigest()
    instance = hashlib.sha256(sop_instance_uid.encode()).hexdigest()
    return f"{SPOOL}/{study[:2]}/{study}/{instance}.{content[:16]}.dcm"


def file_header(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: Source
) -> bytes:
    """Preamble and file meta information (PS3.10 7.1) for a data set as received."""
    private = _SOURCE.encode(
        {
            "calling_ae": source.calling_ae, "called_ae": source.called_ae,
            "address": source.address, "received_at": source.received_at_s,
            "version": __version__,
        }
    ).encode()  # fmt: skip
    meta = b"".join(
        (
            _META_VERSION,
            _short(0x0002, b"UI", sop_class_uid.encode(), b"\0"),
            _short(0x0003, b"UI", sop_instance_uid.encode(), b"\0"),
            _short(0x0010, b"UI", transfer_syntax_uid.encode(), b"\0"),
            _IMPLEMENTATION,
            _PRIVATE_CREATOR,
            _long(0x0102, b"OB", private + b" " * (len(private) % 2)),
        )
    )
    length = _short(0x0000, b"UL", struct.pack("<I", len(meta)), b"")
    return _PREAMBLE + length + meta


def _short(element: int, vr: bytes, value: bytes, padding: bytes) -> bytes:
    """Encode an element of group 0002, Explicit VR Little Endian, short form (PS3.5 7.1.2)."""
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _long(element: int, vr: bytes, value: bytes) -> bytes:
    """Encode an element of group 0002, long form."""
    return struct.pack("<HH2sHI", 0x0002, element, vr, 0, len(value)) + value


_PREAMBLE = b"\0" * 128 + b"DICM"
_META_VERSION = _long(0x0001, b"OB", b"\0\1")
_IMPLEMENTATION = _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode(), b"\0") + _short(
    0x0013, b"SH", IMPLEMENTATION_VERSION.encode(), b" "
)
_PRIVATE_CREATOR = _short(0x0100, b"UI", PRIVATE_CREATOR_UID.encode(), b"\0")
_SOURCE = json.JSONEncoder()


def instance_row(
    header: InstanceHeader, transfer_syntax_uid: str, digest: str, size: int, source: Source
) -> InstanceRow:
    """Build the row of an instance from its header and its source."""
    return InstanceRow(
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        sop_class_uid=header.sop_class_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=transfer_syntax_uid,
        role="image" if header.sop_class_uid in IMAGE_CLASSES else "other",
        identity=Identity.of(header.patient_id, header.issuer, header.birth_date),
        header_json=header.to_json(),
        dataset_digest=digest,
        path=spool_path(header.study_uid, header.sop_instance_uid, transfer_syntax_uid, digest),
        size=size,
        received_at_s=source.received_at_s,
        calling_ae=source.calling_ae,
        called_ae=source.called_ae,
        address=source.address,
    )


def read_stored(path: Path) -> Stored:
    """Read the head of a stored file.

    Raises:
        ValueError: the file is not one that this node wrote.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return parse_stored(file.read(_MAX_META_BYTES))


def parse_stored(head: bytes) -> Stored:
    """Parse the first bytes of a stored file.

    Raises:
        ValueError: they are not of a file that this node wrote.
    """
    if len(head) < PREAMBLE_BYTES + 12 or head[128:132] != b"DICM":
        raise ValueError("not a Part 10 file")
    # (0002,0000) File Meta Information Group Length, UL: 8 bytes of element header, 4 of value
    length = int.from_bytes(head[PREAMBLE_BYTES + 8 : PREAMBLE_BYTES + 12], "little")
    offset = PREAMBLE_BYTES + 12 + length
    if offset > len(head):
        raise ValueError("the file meta information is too long")
    meta = _file_meta(head[:offset])
    try:
        told = json.loads(bytes(meta.PrivateInformation).rstrip(b" \0"))
        source = Source(
            str(told["calling_ae"]), str(told["called_ae"]), str(told["address"]),
            float(told["received_at"]),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError("the source of the instance is not in the file") from error
    return Stored(
        str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID),
        str(meta.TransferSyntaxUID), source, offset,
    )  # fmt: skip


def _file_meta(head: bytes) -> FileMetaDataset:
    try:
        return pydicom.dcmread(io.BytesIO(head)).file_meta
    except (InvalidDicomError, EOFError, AttributeError, struct.error) as error:
        raise ValueError("the file meta information cannot be read") from error


def read_dataset(data_dir: Path, row: InstanceRow) -> bytes:
    """Read the data set of an instance as it was received, checked against its digest.

    Raises:
        InputProblem: the file is gone, or its bytes are not those received (hash_mismatch).
    """
    path = data_dir / row.path
    try:
        data = path.read_bytes()[read_stored(path).dataset_offset :]
    except (OSError, ValueError) as error:
        raise InputProblem(Reason.HASH_MISMATCH, f"({row.sop_instance_uid}: {error})") from None
    if hashlib.sha256(data).hexdigest() != row.dataset_digest:
        raise InputProblem(Reason.HASH_MISMATCH, f"({row.sop_instance_uid})")
    return data


def verify(data_dir: Path, row: InstanceRow) -> None:
    """Check that the stored bytes of an instance are those received.

    Raises:
        InputProblem: they are not (hash_mismatch).
    """
    read_dataset(data_dir, row)


def study_folders(data_dir: Path, since_s: float = 0.0) -> list[Path]:
    """Folders of studies in the spool in which a name changed since a time (epoch seconds)."""
    folders = (data_dir / SPOOL).glob("*/*/")
    return [folder for folder in folders if folder.stat().st_mtime >= since_s]


def result_folders(data_dir: Path, since_s: float = 0.0) -> list[Path]:
    """Folders of results in which a name changed since a time (epoch seconds)."""
    folders = (data_dir / RESULTS).glob("*/")
    return [folder for folder in folders if folder.stat().st_mtime >= since_s]


def spool_files(data_dir: Path, since_s: float = 0.0) -> Iterator[Path]:
    """Instance files of the spool written since a time (epoch seconds), oldest first."""
    found = []
    for folder in study_folders(data_dir, since_s):
        for path in folder.glob("*.dcm"):
            written = path.stat()
            if written.st_mtime >= since_s:
                found.append((written.st_mtime_ns, path.name, path))
    yield from (path for _, _, path in sorted(found))
