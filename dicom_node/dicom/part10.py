"""Where the data set of a Part 10 file begins (PS3.10 7.1)."""

from __future__ import annotations

import hashlib

_PREAMBLE = 128
_PREFIX_END = 132
# (0002,0000) File Meta Information Group Length, UL: 8 bytes of element header, 4 of value
_LENGTH_END = _PREFIX_END + 12


def dataset_offset(data: bytes) -> int:
    """Offset of the data set; 0 for bytes that have no file meta information."""
    if data[_PREAMBLE:_PREFIX_END] != b"DICM" or len(data) < _LENGTH_END:
        return 0
    return _LENGTH_END + int.from_bytes(data[_PREFIX_END + 8 : _LENGTH_END], "little")


def dataset_sha256(data: bytes) -> str:
    """SHA-256 of the data set bytes of a Part 10 file, file meta information left out."""
    return hashlib.sha256(memoryview(data)[dataset_offset(data) :]).hexdigest()
