"""Conversations on a storage association, as a tree that can be changed in any place.

A conversation is a list of PDUs; a P-DATA-TF holds values, a value holds a fragment of a command
set or of a data set. Lengths are those of the content unless a mutation declares another one
(PS3.8 9.3.1, 9.3.5, E.2; PS3.7 6.3, E.1).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.net.contexts import VERIFICATION

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"
CONTEXTS = {
    1: (MR, ImplicitVRLittleEndian),
    3: (VERIFICATION, ImplicitVRLittleEndian),
    5: (ENHANCED, ExplicitVRLittleEndian),
}
"""What was agreed on: context ID to abstract and transfer syntax."""
LENGTHS = (0, 1, 2, 5, 6, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HOSTILE_UIDS = (
    b"", b".", b"..", b"../../../etc/x", b"1.2.3\0", b"\0", b"1" * 64, b"1." * 32, b"1.2.3.4 ",
    b"1.2/../3", b"A" * 64, b"\xff\xfe\xfd\xfc", b"1.2\n3", b"%s%n%d", b"1.2." + b"9" * 200,
)  # fmt: skip


@dataclass
class Value:
    """A presentation data value: control bit 0 says command, bit 1 says last fragment."""

    context: int
    control: int
    data: bytes
    length: int | None = None

    def encode(self) -> bytes:
        length = len(self.data) + 2 if self.length is None else self.length
        return struct.pack(">LBB", length & 0xFFFFFFFF, self.context, self.control) + self.data


@dataclass
class Pdu:
    """A PDU; ``values`` where it is a P-DATA-TF, else ``body``."""

    kind: int
    values: list[Value] = field(default_factory=list)
    body: bytes = b""
    reserved: int = 0
    length: int | None = None

    def encode(self) -> bytes:
        content = b"".join(value.encode() for value in self.values) + self.body
        length = len(content) if self.length is None else self.length
        return struct.pack(">BBL", self.kind, self.reserved, length & 0xFFFFFFFF) + content


Element = tuple[int, int, bytes, int | None]
"""Of a command set: group, number, value, declared length where it is not that of the value."""


def command(elements: list[Element], group_length: int | None = None) -> bytes:
    """Encode a command set; ``group_length``: another one than the right one."""
    body = b"".join(
        struct.pack("<HHL", group, number, len(value) if length is None else length & 0xFFFFFFFF)
        + value
        for group, number, value, length in elements
    )
    told = len(body) if group_length is None else group_length
    return struct.pack("<HHLL", 0, 0, 4, told & 0xFFFFFFFF) + body


def _even(value: bytes) -> bytes:
    return value + b"\0" * (len(value) % 2)


def store_elements(chance: random.Random, context: int, uid: bytes) -> list[Element]:
    syntax = CONTEXTS[context][0].encode()
    return [
        (0, 0x0002, _even(syntax), None),
        (0, 0x0100, struct.pack("<H", 0x0001), None),
        (0, 0x0110, struct.pack("<H", chance.randrange(65536)), None),
        (0, 0x0700, struct.pack("<H", chance.choice((0, 1, 2))), None),
        (0, 0x0800, struct.pack("<H", 0x0001), None),
        (0, 0x1000, _even(uid), None),
    ]


def plain_elements(chance: random.Random, command_field: int) -> list[Element]:
    return [
        (0, 0x0002, _even(VERIFICATION.encode()), None),
        (0, 0x0100, struct.pack("<H", command_field), None),
        (0, 0x0110, struct.pack("<H", chance.randrange(65536)), None),
        (0, 0x0800, struct.pack("<H", 0x0101), None),
    ]


def fragments(chance: random.Random, data: bytes, context: int, flag: int) -> list[Value]:
    """Cut bytes into values at random; ``flag``: 1 for a command, 0 for a data set."""
    values = []
    at = 0
    while at < len(data) or not values:
        size = chance.choice((1, 7, 64, 1000, 16_000, len(data)))
        part = data[at : at + max(1, size)]
        at += max(1, size)
        values.append(Value(context, flag, part))
        if len(values) > 200:
            values.append(Value(context, flag, data[at:]))
            break
    values[-1].control |= 2
    return values


def message(chance: random.Random) -> list[Value]:
    """One request: C-STORE mostly, C-ECHO, C-CANCEL, one that is not offered, a response."""
    kind = chance.choices(("store", "echo", "cancel", "other"), (8, 2, 1, 1))[0]
    if kind == "store":
        context = chance.choice((1, 1, 5))
        uid = b"1.2.%d.%d" % (chance.randrange(10**6), chance.randrange(10**9))
        elements = mutate_elements(chance, store_elements(chance, context, uid))
        data = chance.randbytes(chance.choice((0, 1, 100, 3000, 20_000)))
        return fragments(chance, elements, context, 1) + fragments(chance, data, context, 0)
    field_of = {"echo": 0x0030, "cancel": 0x0FFF, "other": chance.choice((0x0020, 0x8001, 0x0140))}
    elements = mutate_elements(chance, plain_elements(chance, field_of[kind]))
    return fragments(chance, elements, 3, 1)


def mutate_elements(chance: random.Random, elements: list[Element]) -> bytes:
    """Encode a command set, one in four of them with one thing wrong."""
    if chance.random() > 0.25:
        return command(elements)
    place = chance.randrange(len(elements))
    group, number, value, length = elements[place]
    way = chance.randrange(9)
    if way == 0:
        elements[place] = (group, number, value, chance.choice(LENGTHS))
    elif way == 1:
        elements[place] = (group, number, chance.choice(HOSTILE_UIDS), length)
    elif way == 2:
        elements[place] = (chance.choice((0, 2, 8, 0xFFFE)), chance.randrange(65536), value, None)
    elif way == 3:
        del elements[place]
    elif way == 4:
        elements.insert(chance.randrange(len(elements)), elements[place])
    elif way == 5:
        chance.shuffle(elements)
    elif way == 6:
        elements[place] = (group, number, chance.randbytes(chance.choice((0, 1, 2, 3, 70))), None)
    elif way == 7:
        elements.append((0, chance.randrange(65536), bytes(chance.choice((2, 5000, 70_000))), None))
    else:
        return command(elements, chance.choice(LENGTHS))
    return command(elements)


def conversation(chance: random.Random) -> list[Pdu]:
    """A few requests packed into PDUs at random, and an end."""
    pdus = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        values = message(chance)
        while values:
            take = chance.choice((1, 1, 2, len(values)))
            pdus.append(Pdu(4, values[:take]))
            values = values[take:]
    end = chance.choices(("release", "abort", "gone"), (6, 1, 3))[0]
    if end == "release":
        pdus.append(Pdu(5, body=bytes(4)))
    elif end == "abort":
        pdus.append(Pdu(7, body=bytes(4)))
    return pdus


# mutations of the tree; each changes one thing


def _some(chance: random.Random, pdus: list[Pdu]) -> Pdu:
    return chance.choice(pdus)


def _value(chance: random.Random, pdus: list[Pdu]) -> Value | None:
    with_values = [pdu for pdu in pdus if pdu.values]
    return chance.choice(chance.choice(with_values).values) if with_values else None


def pdu_length(chance: random.Random, pdus: list[Pdu]) -> None:
    pdu = _some(chance, pdus)
    real = len(pdu.encode()) - 6
    near = (real - 1, real + 1, real + 6, 131072, 131072 + 4096, 131072 + 4097)
    pdu.length = max(0, chance.choice((*LENGTHS, *near)))


def pdu_kind(chance: random.Random, pdus: list[Pdu]) -> None:
    _some(chance, pdus).kind = chance.choice((*range(10), 0x41, 0x47, 0x80, 0xFF))


def value_length(chance: random.Random, pdus: list[Pdu]) -> None:
    if value := _value(chance, pdus):
        real = len(value.data) + 2
        value.length = max(0, chance.choice((*LENGTHS, real - 1, real + 1, real + 6)))


def value_context(chance: random.Random, pdus: list[Pdu]) -> None:
    if value := _value(chance, pdus):
        value.context = chance.choice((0, 1, 2, 3, 5, 7, 128, 254, 255))


def value_control(chance: random.Random, pdus: list[Pdu]) -> None:
    if value := _value(chance, pdus):
        value.control = chance.choice((0, 1, 2, 3, 4, 0x80, 0xFC, 0xFF))


def value_data(chance: random.Random, pdus: list[Pdu]) -> None:
    if value := _value(chance, pdus):
        value.data = chance.choice(
            (b"", b"\0", value.data[:-1], value.data * 2, chance.randbytes(len(value.data)))
        )


def drop(chance: random.Random, pdus: list[Pdu]) -> None:
    if len(pdus) > 1:
        del pdus[chance.randrange(len(pdus))]


def repeat(chance: random.Random, pdus: list[Pdu]) -> None:
    pdus.insert(chance.randrange(len(pdus) + 1), replace(_some(chance, pdus)))


def swap(chance: random.Random, pdus: list[Pdu]) -> None:
    one, two = chance.randrange(len(pdus)), chance.randrange(len(pdus))
    pdus[one], pdus[two] = pdus[two], pdus[one]


def interleave(chance: random.Random, pdus: list[Pdu]) -> None:
    """Put values of another message between those of one."""
    place = chance.randrange(len(pdus) + 1)
    pdus[place:place] = [Pdu(4, [value]) for value in message(chance)[:3]]


def foreign(chance: random.Random, pdus: list[Pdu]) -> None:
    """Insert a PDU that has no business there."""
    kind = chance.choice((0, 1, 2, 3, 6, 8, 99, 255))
    body = chance.randbytes(chance.choice((0, 4, 68, 200)))
    pdus.insert(chance.randrange(len(pdus) + 1), Pdu(kind, body=body))


def storm(chance: random.Random, pdus: list[Pdu]) -> None:
    """Many small requests, or many empty values, at once."""
    if chance.random() < 0.5:
        cancel = Value(3, 3, command(plain_elements(chance, 0x0FFF)))
        pdus[0:0] = [Pdu(4, [cancel])] * chance.choice((10, 300))
    else:
        pdus[0:0] = [Pdu(4, [Value(1, chance.choice((0, 1)), b"")] * chance.choice((10, 3000)))]


def no_values(_chance: random.Random, pdus: list[Pdu]) -> None:
    pdus.insert(0, Pdu(4))


MUTATIONS: tuple[Callable[[random.Random, list[Pdu]], None], ...] = (
    pdu_length, pdu_kind, value_length, value_context, value_control, value_data, drop, repeat,
    swap, interleave, foreign, storm, no_values,
)  # fmt: skip


def flip(chance: random.Random, data: bytes) -> bytes:
    """Change a few bytes wherever they are."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if changed:
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def insert(chance: random.Random, data: bytes) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.randbytes(chance.choice((1, 6, 100))) + data[place:]


def hostile_bytes(chance: random.Random) -> bytes:
    """What a hostile or broken peer sends after the association stands; one in 20 is honest."""
    pdus = conversation(chance)
    for _ in range(chance.choices((0, 1, 2, 3), (1, 12, 5, 2))[0]):
        chance.choice(MUTATIONS)(chance, pdus)
        if not pdus:
            pdus = [Pdu(5, body=bytes(4))]
    data = b"".join(pdu.encode() for pdu in pdus)[:200_000]
    if chance.random() < 0.3:
        data = chance.choice((flip, cut, insert))(chance, data)
    return data
