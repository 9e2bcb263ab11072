"""The b-value of an image: a table of sources, tried in order; private elements by creator.

Sources: PS3.3 C.8.13.5.9 (public), and what dcm2niix documents for each vendor.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from dicom_node.dicom.elements import Elements, binary_number, text_numbers

_B_VALUE = 0x00189087
_DIRECTIONALITY = 0x00189075
_DIFFUSION_SEQUENCE = 0x00189117
_MAX_B = 20_000.0
_MAX_TEXT = 256
_GE_FLAG = 1_000_000_000  # GE adds multiples of 10^9 to mark how the image was made

TAG_SOURCES = frozenset(("public", "siemens", "siemens-csa", "ge", "philips", "uih"))
"""Sources that state the b-value of this very image (names and descriptions may state a range)."""


def _public(elements: Elements) -> float | None:
    value = elements.double(_B_VALUE)
    if value is None:
        item = elements.item(_DIFFUSION_SEQUENCE)
        value = item.double(_B_VALUE) if item else None
    return value


def _siemens(elements: Elements) -> float | None:
    # IS; OB or UN after de-identification, then bytes such as b"800 "
    return _first(elements.private(0x0019, b"SIEMENS MR HEADER", 0x0C))


def _siemens_csa(elements: Elements) -> float | None:
    return csa_number(elements.private(0x0029, b"SIEMENS CSA HEADER", 0x10), b"B_value")


def _ge(elements: Elements) -> float | None:
    value = _first(elements.private(0x0043, b"GEMS_PARM_01", 0x39))
    return None if value is None else value % _GE_FLAG


def _philips(elements: Elements) -> float | None:
    order = elements.encoding.order
    return binary_number(elements.private(0x2001, b"Philips Imaging DD 001", 0x03), order)


def _uih(elements: Elements) -> float | None:
    order = elements.encoding.order
    return binary_number(elements.private(0x0065, b"Image Private Header", 0x09), order)


def _first(raw: bytes) -> float | None:
    numbers = text_numbers(raw[:_MAX_TEXT]) if raw else None
    return numbers[0] if numbers else None


_SOURCES: tuple[tuple[str, Callable[[Elements], float | None]], ...] = (
    ("public", _public),
    ("siemens", _siemens),
    ("siemens-csa", _siemens_csa),
    ("ge", _ge),
    ("philips", _philips),
    ("uih", _uih),
)

_SEQUENCE_B = re.compile(r"b(\d{1,5})t?$")
_RANGE_B = re.compile(r"b(\d{1,5})_(\d{1,5})")
_TEXT_B = re.compile(r"(?<![a-z0-9])b[\s_=-]?(\d{1,4})(?!\d)(?!\s*[_,/\\-]\s*\d)", re.IGNORECASE)


def tagged_b_value(elements: Elements) -> tuple[float | None, str]:
    """b-value (s/mm^2) from public or private elements, and the name of its source."""
    for name, read in _SOURCES:
        value = read(elements)
        if value is not None and 0 <= value <= _MAX_B:
            return value, name
    # PS3.3 C.8.13.5.9: NONE is an image without diffusion weighting
    return (0.0, "directionality") if directionality(elements) == "NONE" else (None, "")


def named_b_value(sequence_name: str, *descriptions: str) -> tuple[float | None, str]:
    """b-value from the sequence name (``*ep_b50t``), then from a description that names one b."""
    match = _SEQUENCE_B.search(sequence_name.strip())
    if match:
        return float(match.group(1)), "sequence-name"
    for text in descriptions:
        found = {float(number) for number in _TEXT_B.findall(text)}
        if len(found) == 1:
            return found.pop(), "description"
    return None, ""


def acquired_range(sequence_name: str) -> float | None:
    """Largest b of an acquisition whose name gives a range (``*ep_b50_800``: 800)."""
    match = _RANGE_B.search(sequence_name)
    return max(float(match.group(1)), float(match.group(2))) if match else None


# Philips: O, and the axes, are gradient directions; I is the isotropic (trace) image
_PHILIPS_DIRECTION = {"I": "ISOTROPIC", "N": "NONE"}


def directionality(elements: Elements) -> str:
    """Diffusion Directionality: DIRECTIONAL, ISOTROPIC, NONE, BMATRIX or '' where unknown."""
    value = elements.ascii(_DIRECTIONALITY)
    if not value:
        item = elements.item(_DIFFUSION_SEQUENCE)
        value = item.ascii(_DIRECTIONALITY) if item else ""
    if not value:
        raw = elements.private(0x0019, b"SIEMENS MR HEADER", 0x0D)
        value = raw.decode("latin-1").strip(" \0")
    if not value:
        raw = elements.private(0x2001, b"Philips Imaging DD 001", 0x04)
        letter = raw.decode("latin-1").strip(" \0").upper()
        value = _PHILIPS_DIRECTION.get(letter, "DIRECTIONAL" if letter else "")
    return value.upper()


def csa_number(header: bytes, name: bytes) -> float | None:
    """First number of a named field of a Siemens CSA header (SV10 form or the older one).

    Each field: name (64 bytes), multiplicity, VR, syngo type, number of items, a check number;
    each item: four integers and a value padded to four bytes.
    """
    start = header.find(name + b"\0")
    if start < 0 or start + 84 > len(header):
        return None
    (items,) = struct.unpack_from("<i", header, start + 76)
    offset = start + 84
    # the older form counts an item's length from another base; the first word is then larger
    for _ in range(min(max(items, 0), 8)):
        if offset + 16 > len(header):
            return None
        length = struct.unpack_from("<4i", header, offset)[1]
        offset += 16
        if not 0 <= length <= len(header) - offset:
            return None
        value = _first(header[offset : offset + length].split(b"\0")[0])
        if value is not None:
            return value
        offset += (length + 3) // 4 * 4
    return None
