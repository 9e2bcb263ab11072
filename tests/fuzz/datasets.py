"""Data sets as trees of elements that can be changed in any place (PS3.5 section 7).

A tree is read from a valid data set in Explicit VR Little Endian and written in any native
encoding, with lengths, value representations and delimiters as a mutation left them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

UNDEFINED = 0xFFFFFFFF
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = [*_LONG, *b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()]
_LENGTHS = (0, 1, 2, 3, 7, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, UNDEFINED - 1)
_NUMBERS = (
    b"0", b"-0", b"nan", b"inf", b"-inf", b"1e30", b"1e400", b"1e-300", b"-1", b"1_0", b"0x10",
    b"1,5", b"", b"\\\\", b"999999999999999", b"1e15", b"2147483648", b"9" * 300, b"1 2",
    b"\xd9\xa1", b"+1.", b".", b"1e", b"NaN\\0\\1", b"0\\0\\0", b"1e30\\1e30\\1e30", b"\0\0",
)  # fmt: skip
_GEOMETRY = (
    b"1\\0\\0\\1\\0\\0", b"0\\0\\0\\0\\0\\0", b"1\\0\\0\\0\\1", b"nan\\0\\0\\0\\1\\0",
    b"1\\0\\0\\0.5\\0.5\\0", b"1e14\\0\\0\\0\\1e14\\0", b"1e-9\\0\\0\\0\\1e-9\\0",
    b"-1\\0\\0\\0\\-1\\0", b"0\\0\\0\\0\\0\\1", b"1\\1\\1\\1\\1\\1",
)  # fmt: skip
_TEXTS = (
    b"", b"\\ud800\xe9", b"\\udfff\x80", b"\0", b"a\0b", b"\xff" * 9, b"\x1b$B\x33",
    b"\x1b(J\x1b$)C\xb0\xa1", b"\xed\xa0\x80", b"\xf0\x9f\x92\xa9", b"\\" * 2000, b"x" * 70_000,
    b"\r\n\t", b"%s%n", b"'; drop table x; --", b"\xc3", b"\x80\x81\x82", b'{"a": NaN}',
)  # fmt: skip
_CHARSETS = (
    b"", b"ISO_IR 192", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"GB18030", b"ISO_IR 13",
    b"ISO 2022 IR 6\\ISO 2022 IR 87\\ISO 2022 IR 159", b"nonsense", b"\0", b"utf-8",
    b"ISO_IR 100\\ISO_IR 192", b"\\\\\\", b"rot13", b"idna", b"utf_7", b"punycode",
    b"unicode_escape", b"hex", b"../x",
)  # fmt: skip
_UIDS = (
    b"", b".", b"..", b"../../../etc/x", b"1.2.3\0\0", b"1" * 65, b"1.2/3", b"\xff\xff", b"1.2 3",
    b"0.0", b"1.2.3.4.5.6", b"1..2", b" 1.2 ",
)  # fmt: skip
_DATES = (b"", b"20260231", b"00000000", b"99999999", b"2026", b"now", b"-2026101", b"1e5")
_TIMES = (b"", b"256161", b"999999.999999", b"-1", b"10", b"101010.1234567890", b"24:00", b"nan")
CHARACTER_SET, ROWS, COLUMNS, FRAMES, PIXELS = (
    0x00080005, 0x00280010, 0x00280011, 0x00280008, 0x7FE00010,
)  # fmt: skip
UIDS = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x00200052)
VECTORS = (0x00200037, 0x00200032, 0x00280030)


@dataclass
class Node:
    """An element: bytes, or items where it is a sequence; ``length``: declared otherwise."""

    tag: int
    vr: bytes
    value: bytes = b""
    items: list[list[Node]] | None = None
    length: int | None = None
    undefined: bool = False
    closed: bool = True

    def encode(self, explicit: bool, order: str) -> bytes:
        value = self.value if self.items is None else self._items(explicit, order)
        length = len(value) if self.length is None else self.length
        if self.undefined:
            length = UNDEFINED
            value += _tag(0xFFFEE0DD, order) + bytes(4) if self.closed else b""
        head = _tag(self.tag, order)
        if not explicit:
            return head + struct.pack(order + "I", length) + value
        if self.vr in _LONG or len(self.vr) != 2:
            return head + self.vr[:2].ljust(2) + bytes(2) + struct.pack(order + "I", length) + value
        return head + self.vr + struct.pack(order + "H", length & 0xFFFF) + value

    def _items(self, explicit: bool, order: str) -> bytes:
        parts = []
        for item in self.items or []:
            content = encode(item, explicit, order)
            if self.undefined:
                content += _tag(0xFFFEE00D, order) + bytes(4) if self.closed else b""
            told = UNDEFINED if self.undefined else len(content)
            parts.append(_tag(0xFFFEE000, order) + struct.pack(order + "I", told) + content)
        return b"".join(parts)


def _tag(tag: int, order: str) -> bytes:
    return struct.pack(order + "HH", tag >> 16 & 0xFFFF, tag & 0xFFFF)


def encode(nodes: list[Node], explicit: bool = True, order: str = "<") -> bytes:
    """Write a tree."""
    return b"".join(node.encode(explicit, order) for node in nodes)


def decode(data: bytes) -> list[Node]:
    """Read a valid data set in Explicit VR Little Endian, lengths of sequences defined."""
    nodes, at = [], 0
    while at < len(data):
        group, element, vr = struct.unpack_from("<HH2s", data, at)
        size, start = (
            (struct.unpack_from("<I", data, at + 8)[0], at + 12)
            if vr in _LONG
            else (struct.unpack_from("<H", data, at + 6)[0], at + 8)
        )
        at = start + size
        node = Node(group << 16 | element, vr, data[start:at])
        if vr == b"SQ":
            node.items = _decode_items(node.value)
        nodes.append(node)
    return nodes


def _decode_items(data: bytes) -> list[list[Node]]:
    items, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        items.append(decode(data[at + 8 : at + 8 + size]))
        at += 8 + size
    return items


@dataclass
class Tree:
    """A data set and how it will be written."""

    nodes: list[Node]
    explicit: bool = True
    order: str = "<"
    chance: random.Random = field(default_factory=random.Random)

    def levels(self) -> list[list[Node]]:
        """Every list of elements in it, the data set first."""
        found = [self.nodes]
        for level in found:
            for node in level:
                found.extend(node.items or [])
        return [level for level in found if level]

    def some(self) -> Node:
        """Any element; the data set itself as often as all its items together."""
        levels = self.levels()
        level = levels[0] if self.chance.random() < 0.5 else self.chance.choice(levels)
        return self.chance.choice(level)

    def put(self, tag: int, vr: bytes, value: bytes) -> None:
        """Set an element of the data set, or of any item that has it."""
        places = [node for level in self.levels() for node in level if node.tag == tag]
        if places:
            node = self.chance.choice(places)
            node.value, node.items = value, None
        else:
            self.nodes.append(Node(tag, vr, value))
            self.nodes.sort(key=lambda node: node.tag)

    def bytes(self) -> bytes:
        """Write it."""
        return encode(self.nodes, self.explicit, self.order)


def vr(tree: Tree) -> None:
    tree.some().vr = tree.chance.choice([*_VRS, b"??", b"\0\0", b"ZZ", b"sq"])


def length(tree: Tree) -> None:
    node = tree.some()
    real = len(node.value)
    node.length = max(0, tree.chance.choice((*_LENGTHS, real - 1, real + 1, real + 8)))


def undefined_length(tree: Tree) -> None:
    node = tree.some()
    node.undefined, node.closed = True, tree.chance.random() < 0.5


def nested(tree: Tree) -> None:
    """Sequences in sequences; the deep ones in one byte string, or they could not be written."""
    depth = tree.chance.choice((1, 10, 31, 32, 33, 100, 1000, 10_000))
    head = b"\x0a\x00\x0a\x00SQ\0\0" if tree.explicit else b"\x0a\x00\x0a\x00"
    step = head + struct.pack("<I", UNDEFINED) + b"\xfe\xff\x00\xe0" + struct.pack("<I", UNDEFINED)
    close = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    inner = step * depth + (close * depth if tree.chance.random() < 0.8 else b"")
    tree.nodes.append(Node(0x00081140, b"SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + inner))
    tree.nodes.sort(key=lambda node: node.tag)
    tree.nodes[0].undefined = tree.chance.random() < 0.1


def many_items(tree: Tree) -> None:
    count = tree.chance.choice((100, 5000, 20_001))
    tree.nodes.append(Node(0x00089215, b"SQ", b"\xfe\xff\x00\xe0\0\0\0\0" * count))


def duplicate(tree: Tree) -> None:
    level = tree.chance.choice(tree.levels())
    level.insert(tree.chance.randrange(len(level)), tree.chance.choice(level))


def drop(tree: Tree) -> None:
    level = tree.chance.choice(tree.levels())
    del level[tree.chance.randrange(len(level))]


def order(tree: Tree) -> None:
    tree.chance.shuffle(tree.chance.choice(tree.levels()))


def odd(tree: Tree) -> None:
    node = tree.some()
    node.value = node.value[:-1]


def giant(tree: Tree) -> None:
    tree.some().value = tree.chance.choice((b"1\\", b"AB\\", b"\\")) * 40_000


def private(tree: Tree) -> None:
    chance = tree.chance
    creator = chance.choice((b"SIEMENS MR HEADER", b"GEMS_PARM_01", b"SIEMENS CSA HEADER", b"X"))
    group = chance.choice((0x0019, 0x0029, 0x0043, 0x2001, 0x0065))
    block = chance.choice((0x00, 0x0F, 0x10, 0x11, 0xFF))
    element = chance.choice((0x03, 0x09, 0x0C, 0x10, 0x39))
    tree.nodes.append(Node(group << 16 | block, b"LO", creator))
    value = chance.choice((*_NUMBERS, b"SV10\4\3\2\1" + b"\xff" * 100, bytes(200)))
    tree.nodes.append(Node(group << 16 | block << 8 | element, chance.choice(_VRS), value))
    tree.nodes.sort(key=lambda node: node.tag)


def charset(tree: Tree) -> None:
    tree.put(CHARACTER_SET, b"CS", tree.chance.choice(_CHARSETS))
    tree.put(tree.chance.choice((0x00100010, 0x00100020, 0x0008103E)), b"LO", _text(tree))


def _text(tree: Tree) -> bytes:
    return tree.chance.choice((*_TEXTS, tree.chance.randbytes(20)))


def text(tree: Tree) -> None:
    tree.some().value = _text(tree)


def number(tree: Tree) -> None:
    nodes = [n for level in tree.levels() for n in level if n.vr in (b"DS", b"IS")]
    if nodes:
        tree.chance.choice(nodes).value = tree.chance.choice(_NUMBERS)


def geometry(tree: Tree) -> None:
    tree.put(tree.chance.choice(VECTORS), b"DS", tree.chance.choice((*_GEOMETRY, *_NUMBERS)))


def matrix(tree: Tree) -> None:
    value = tree.chance.choice((0, 1, 2, 99, 100, 101, 0x7FFF, 0x8000, 0xFFFF))
    tree.put(tree.chance.choice((ROWS, COLUMNS)), b"US", struct.pack(tree.order + "H", value))


def frames(tree: Tree) -> None:
    tree.put(FRAMES, b"IS", tree.chance.choice((b"0", b"-1", b"2", b"2147483647", b"1e9", b"x")))


def uid(tree: Tree) -> None:
    tree.put(tree.chance.choice(UIDS), b"UI", tree.chance.choice(_UIDS))


def when(tree: Tree) -> None:
    tree.put(tree.chance.choice((0x00080020, 0x00080022)), b"DA", tree.chance.choice(_DATES))
    tree.put(tree.chance.choice((0x00080030, 0x00080032)), b"TM", tree.chance.choice(_TIMES))


def pixels(tree: Tree) -> None:
    for node in tree.nodes:
        if node.tag == PIXELS:
            chance = tree.chance
            node.value = chance.choice((b"", node.value[:999], node.value + b"x", node.value * 2))
            node.undefined = chance.random() < 0.3


def value(tree: Tree) -> None:
    node = tree.some()
    node.value, node.items = tree.chance.randbytes(tree.chance.choice((0, 1, 4, 8, 300))), None


MUTATIONS: tuple[Callable[[Tree], None], ...] = (
    vr, length, undefined_length, nested, many_items, duplicate, drop, order, odd, giant, private,
    charset, text, number, number, geometry, geometry, matrix, frames, uid, when, pixels, value,
)  # fmt: skip
