"""A bounded reader of encoded data elements (PS3.5 section 7) that touches headers alone.

It notes where each element lies, copies nothing, stops at the pixel data, walks nested sequences
of undefined length without recursion, and has a limit on everything that a sender controls. The
full data set is read elsewhere with pydicom; this reader runs for every image that arrives.
"""

from __future__ import annotations

import codecs
import mmap
import re
import struct
from dataclasses import dataclass
from encodings.aliases import aliases

from pydicom.charset import convert_encodings, decode_bytes, python_encoding

Buffer = bytes | mmap.mmap

MAX_ELEMENTS = 20_000
MAX_ITEMS = 20_000
MAX_ITEM_ELEMENTS = 400_000
MAX_VALUE = 4096
MAX_DEPTH = 32
UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_TAGS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
# PS3.5 table 7.1-2: value representations with a 16-bit length field; the others have 32 bits
_SHORT_VRS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split(b" ")
)
_VRS = _SHORT_VRS | frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split(b" "))

# the library takes the name of any Python codec for a character set: some run escapes, some take
# quadratic time, some make what no database stores
_CODECS = frozenset(codecs.lookup(name).name for name in python_encoding.values())
# Python remembers every name that it was asked for, known or not: ask for these alone
_CHARACTER_SET = re.compile(r"(ISO[ _-](2022[ _-])?IR[ _-]\d{1,3}|GB18030|GBK|) ?")
_SPELT = _CODECS | {
    name.replace("_", separator)
    for name, codec in aliases.items()
    if codec in {known.replace("-", "_") for known in _CODECS}
    for separator in "_-"
}

# group, element, VR, length, by byte order
_SHORT_FORM = {order: struct.Struct(order + "HH2sH").unpack_from for order in "<>"}
_TAG_LENGTH = {order: struct.Struct(order + "HHI").unpack_from for order in "<>"}


class HeaderError(Exception):
    """A data set that cannot be read. ``code`` is machine-readable, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Encoding:
    """How elements are encoded: VR written out or not, byte order as a struct prefix."""

    explicit: bool
    order: str = "<"


@dataclass(frozen=True)
class PixelElement:
    """Where pixel data starts; ``length`` is ``UNDEFINED`` for encapsulated frames."""

    tag: int
    offset: int
    length: int


class Elements:
    """The elements of one data set or item, decoded on demand. Values never raise: None or ''."""

    __slots__ = ("_creators", "data", "encoding", "index", "pixels")

    def __init__(
        self, data: Buffer, encoding: Encoding, index: dict[int, tuple[int, int, bytes]]
    ) -> None:
        self.data = data
        self.encoding = encoding
        self.index = index
        self.pixels: PixelElement | None = None
        self._creators: dict[tuple[int, bytes], int] | None = None

    def __contains__(self, tag: int) -> bool:
        return tag in self.index

    def raw(self, tag: int) -> bytes:
        """Value as received, b'' where absent or of undefined length."""
        place = self.index.get(tag)
        if place is None or place[1] == UNDEFINED:
            return b""
        return self.data[place[0] : place[0] + place[1]]

    def _start(self, tag: int) -> bytes:
        """Value of an element that is short in every honest data set: its first 4 kB."""
        place = self.index.get(tag)
        if place is None or place[1] == UNDEFINED:
            return b""
        return self.data[place[0] : place[0] + min(place[1], MAX_VALUE)]

    def ascii(self, tag: int) -> str:
        """One value of the default repertoire (CS, UI, DA, TM...), padding removed."""
        return self._start(tag).decode("latin-1").strip(" \0")

    def words(self, tag: int) -> tuple[str, ...]:
        """All values of a multi-valued CS."""
        text = self.ascii(tag)
        return tuple(word.strip(" \0") for word in text.split("\\")) if text else ()

    def text(self, tag: int, charset: str) -> str:
        """Decode a text in the data set's own character set; bytes that do not fit are replaced."""
        raw = self._start(tag).strip(b" \0")
        if not raw or (raw.isascii() and b"\x1b" not in raw):
            return raw.decode("latin-1")
        try:
            return _decoded(raw, charset)
        except (LookupError, ValueError, TypeError):
            return raw.decode("latin-1")

    def decimals(self, tag: int) -> tuple[float, ...] | None:
        """All numbers of a DS or IS element, None where one is missing or unreadable."""
        return text_numbers(self._start(tag))

    def decimal(self, tag: int) -> float | None:
        """First number of a DS or IS element."""
        numbers = self.decimals(tag)
        return numbers[0] if numbers else None

    def whole(self, tag: int) -> int | None:
        """First number of an IS element."""
        value = self.decimal(tag)
        return None if value is None else int(value)

    def short(self, tag: int) -> int | None:
        """Read a US element."""
        return self._binary(tag, "H")

    def long(self, tag: int) -> int | None:
        """Read a UL element."""
        return self._binary(tag, "I")

    def double(self, tag: int) -> float | None:
        """Read an FD element; a number written as text is read too."""
        return binary_number(self._start(tag), self.encoding.order)

    def _binary(self, tag: int, form: str) -> int | None:
        raw = self._start(tag)
        size = struct.calcsize(form)
        if len(raw) < size:
            return None
        return int(struct.unpack_from(self.encoding.order + form, raw)[0])

    def private(self, group: int, creator: bytes, element: int) -> bytes:
        """Value of a private element, its block found by creator (PS3.5 7.8.1)."""
        if self._creators is None:
            self._creators = {
                (tag >> 16, self._start(tag).strip(b" \0")): (tag & 0xFF) << 8
                for tag in self.index
                if tag & 0x10000 and 0x10 <= tag & 0xFFFF <= 0xFF
            }
        block = self._creators.get((group, creator))
        return b"" if block is None else self.raw(group << 16 | block | element)

    def items(self, tag: int) -> list[Elements]:
        """Items of a sequence, each as elements; [] where absent or malformed."""
        place = self.index.get(tag)
        if place is None:
            return []
        offset, length, vr = place
        # PS3.5 6.2.2: a sequence stored as UN of undefined length is implicit little endian
        encoding = Encoding(False) if vr == b"UN" and length == UNDEFINED else self.encoding
        end = len(self.data) if length == UNDEFINED else offset + length
        found: list[Elements] = []
        elements = 0
        while offset + 8 <= end:
            item, size = _tag_and_length(self.data, offset, encoding)
            if item != _ITEM:
                break
            content, stop = scan(self.data, offset + 8, size, encoding)
            found.append(content)
            elements += len(content.index)
            if len(found) > MAX_ITEMS or elements > MAX_ITEM_ELEMENTS:
                raise HeaderError("too_large", "a sequence has too many items or elements")
            offset = stop
        return found

    def item(self, tag: int) -> Elements | None:
        """First item of a sequence."""
        items = self.items(tag)
        return items[0] if items else None


def _decoded(raw: bytes, charset: str) -> str:
    """Text in the character sets that a data set names (PS3.3 C.12.1.1.2).

    Raises:
        LookupError: it names none of DICOM's.
        ValueError: the bytes make no text that can be stored.
    """
    given = charset.split("\\")
    if not all(_CHARACTER_SET.fullmatch(name) or name.lower().strip() in _SPELT for name in given):
        raise LookupError("no character set of DICOM")
    names = convert_encodings(given)
    if not all(codecs.lookup(name).name in _CODECS for name in names):
        raise LookupError("no character set of DICOM")
    text = decode_bytes(raw, names, set())
    text.encode()  # a half of a surrogate pair cannot be
    return text


def text_numbers(raw: bytes) -> tuple[float, ...] | None:
    """Numbers of a backslash-separated text; None where one is unreadable or not finite."""
    try:
        values = tuple(float(part) for part in raw.strip(b" \0").split(b"\\"))
    except ValueError:
        return None
    return values if all(abs(value) < 1e15 for value in values) else None


def binary_number(raw: bytes, order: str = "<") -> float | None:
    """Read a number of unknown representation: text, FD (8 bytes) or FL (4 bytes).

    A text is tried first: no float in use has only the bytes of digits.
    """
    numbers = text_numbers(raw) if raw else None
    if numbers:
        return numbers[0]
    form = {8: "d", 4: "f"}.get(len(raw))
    if form is None:
        return None
    value = float(struct.unpack(order + form, raw)[0])
    return value if abs(value) < 1e15 else None


def _tag_and_length(data: Buffer, offset: int, encoding: Encoding) -> tuple[int, int]:
    group, element, length = _TAG_LENGTH[encoding.order](data, offset)
    return group << 16 | element, length


def _element_at(data: Buffer, offset: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Tag, VR, offset of the value and its length, of the element at an offset."""
    group, element, vr, count = _SHORT_FORM[encoding.order](data, offset)
    if encoding.explicit and vr in _SHORT_VRS and group != 0xFFFE:  # nearly all of them
        return group << 16 | element, vr, offset + 8, count
    tag, length = _tag_and_length(data, offset, encoding)
    if not encoding.explicit or group == 0xFFFE:
        return tag, b"", offset + 8, length
    if not (vr.isalpha() and vr.isupper()):
        raise HeaderError(
            "malformed", f"no value representation at byte {offset}; the data set is damaged"
        )
    if offset + 12 > len(data):
        raise HeaderError("truncated", "the data set ends inside an element")
    return tag, vr, offset + 12, struct.unpack_from(encoding.order + "I", data, offset + 8)[0]


def scan(
    data: Buffer, offset: int, length: int, encoding: Encoding, *, top: bool = False
) -> tuple[Elements, int]:
    """Note the elements of a data set or item.

    Args:
        data: the encoded bytes.
        offset: where the first element starts.
        length: bytes to read, or ``UNDEFINED`` (then an item delimiter ends it).
        encoding: how the elements are encoded.
        top: the data set itself; reading ends at the pixel data.

    Returns:
        The elements, and the offset behind them.

    Raises:
        HeaderError: an element reaches beyond its container, or a limit is exceeded.
    """
    size = len(data)
    end = size if length == UNDEFINED else offset + length
    if end > size:
        raise HeaderError("truncated", "the data set ends inside a sequence item")
    index: dict[int, tuple[int, int, bytes]] = {}
    found = Elements(data, encoding, index)
    while offset + 8 <= end:
        tag, vr, start, count = _element_at(data, offset, encoding)
        if tag == _ITEM_END:
            return found, offset + 8
        if top and tag in _PIXEL_TAGS:
            found.pixels = PixelElement(tag, start, count)
            break
        index[tag] = (start, count, vr)
        if count == UNDEFINED:
            offset = _skip_undefined(data, start, Encoding(False) if vr == b"UN" else encoding)
        else:
            offset = start + count
        if offset > end:
            name = f"({tag >> 16:04x},{tag & 0xFFFF:04x})"
            raise HeaderError("truncated", f"element {name} is longer than the data set")
        if len(index) > MAX_ELEMENTS:
            raise HeaderError("too_large", f"the data set has more than {MAX_ELEMENTS} elements")
    return found, end


def _skip_undefined(data: Buffer, offset: int, encoding: Encoding) -> int:
    """Offset behind a sequence of undefined length, found with a stack instead of recursion."""
    stack = [(True, encoding)]  # (is a sequence, else an item; how its content is encoded)
    size = len(data)
    while offset + 8 <= size:
        in_sequence, encoding = stack[-1]
        tag, vr, start, length = _element_at(data, offset, encoding)
        offset = start
        if tag == _SEQUENCE_END if in_sequence else tag == _ITEM_END:
            stack.pop()
            if not stack:
                return offset
        elif in_sequence and tag != _ITEM:
            raise HeaderError("malformed", f"a sequence is damaged at byte {start}")
        elif length == UNDEFINED:
            inner = Encoding(False) if vr == b"UN" else encoding
            stack.append((not in_sequence, inner))
            if len(stack) > MAX_DEPTH:
                raise HeaderError("too_large", f"sequences are nested deeper than {MAX_DEPTH}")
        else:
            offset += length
    raise HeaderError("truncated", "the data set ends inside a sequence")


def looks_explicit(data: Buffer, offset: int) -> bool:
    """Whether the element at an offset spells out a known value representation."""
    return data[offset + 4 : offset + 6] in _VRS
