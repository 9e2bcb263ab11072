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
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from dicom_node import __version__
from dicom_node.domain.reasons import Reason
from dicom_node.errors import InputProblem
from dicom_node.results.equipment import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION, uid_of
from dicom_node.store.rows import InstanceRow

SPOOL = "spool"
RESULTS = "results"
PREAMBLE_BYTES = 132
PRIVATE_CREATOR_UID = uid_of("private information", "source of an instance")
"""PS3.10 7.1, (0002,0100): who defined the private information in the file meta header."""
_MAX_META_BYTES = 64 * 1024


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
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    meta.PrivateInformationCreatorUID = UID(PRIVATE_CREATOR_UID)
    text = json.dumps(
        {
            "calling_ae": source.calling_ae, "called_ae": source.called_ae,
            "address": source.address, "received_at": source.received_at_s,
            "version": __version__,
        }
    )  # fmt: skip
    private = text.encode()
    meta.PrivateInformation = private + b" " * (len(private) % 2)
    buffer = DicomBytesIO()
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta, enforce_standard=True)
    return buffer.getvalue()


def read_stored(path: Path) -> Stored:
    """Read the head of a stored file.

    Raises:
        ValueError: the file is not one that this node wrote.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_MAX_META_BYTES)
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


def spool_files(data_dir: Path, since_s: float = 0.0) -> Iterator[Path]:
    """Instance files of the spool written since a time (epoch seconds), oldest first."""
    found = []
    for folder in study_folders(data_dir, since_s):
        for path in folder.glob("*.dcm"):
            written = path.stat()
            if written.st_mtime >= since_s:
                found.append((written.st_mtime_ns, path.name, path))
    yield from (path for _, _, path in sorted(found))
