"""Association requests as a tree of items, with things wrong in them (PS3.8 9.3.2, PS3.7 D.3)."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz.conversations import HOSTILE_UIDS, LENGTHS

MR, ECHO = b"1.2.840.10008.5.1.4.1.1.4", b"1.2.840.10008.1.1"
IMPLICIT = b"1.2.840.10008.1.2"


@dataclass
class Item:
    """An item or sub-item; ``length``: declared otherwise than it is."""

    kind: int
    body: bytes = b""
    items: list[Item] = field(default_factory=list)
    length: int | None = None

    def encode(self) -> bytes:
        content = self.body + b"".join(item.encode() for item in self.items)
        length = len(content) if self.length is None else self.length
        return struct.pack(">BBH", self.kind, 0, length & 0xFFFF) + content


@dataclass
class Request:
    """An A-ASSOCIATE-RQ."""

    items: list[Item]
    called: bytes = b"PROSTATE_AI"
    calling: bytes = b"PACS"
    version: int = 1
    length: int | None = None

    def encode(self) -> bytes:
        names = self.called[:16].ljust(16) + self.calling[:16].ljust(16)
        body = struct.pack(">HH", self.version, 0) + names + bytes(32)
        body += b"".join(item.encode() for item in self.items)
        length = len(body) if self.length is None else self.length
        return struct.pack(">BBL", 1, 0, length & 0xFFFFFFFF) + body


def context(number: int, syntax: bytes, *transfer: bytes) -> Item:
    subs = [Item(0x30, syntax), *(Item(0x40, one) for one in transfer)]
    return Item(0x20, bytes([number & 0xFF, 0, 0, 0]), subs)


def request() -> Request:
    """What a sender asks for: MR, Verification, the usual user information."""
    user = [Item(0x51, struct.pack(">L", 16_384)), Item(0x52, b"1.2.3.4"), Item(0x55, b"SENDER")]
    contexts = [context(1, MR, IMPLICIT), context(3, ECHO, IMPLICIT)]
    return Request([Item(0x10, b"1.2.840.10008.3.1.1.1"), *contexts, Item(0x50, items=user)])


def _all(request: Request) -> list[Item]:
    found = list(request.items)
    for item in found:
        found.extend(item.items)
    return found


def item_length(chance: random.Random, request: Request) -> None:
    item = chance.choice(_all(request))
    item.length = chance.choice((0, 1, 3, 4, len(item.body) + 1, 0x7FFF, 0x8000, 0xFFFF))


def item_kind(chance: random.Random, request: Request) -> None:
    chance.choice(_all(request)).kind = chance.choice((0, 0x10, 0x20, 0x21, 0x30, 0x50, 0x60, 0xFF))


def item_body(chance: random.Random, request: Request) -> None:
    chance.choice(_all(request)).body = chance.choice(
        (*HOSTILE_UIDS, chance.randbytes(chance.choice((0, 1, 4, 300))))
    )


def drop(chance: random.Random, request: Request) -> None:
    lists = [request.items, *(item.items for item in _all(request) if item.items)]
    items = chance.choice(lists)
    if items:
        del items[chance.randrange(len(items))]


def repeat(chance: random.Random, request: Request) -> None:
    lists = [request.items, *(item.items for item in _all(request) if item.items)]
    items = chance.choice(lists)
    if items:
        items.extend([chance.choice(items)] * chance.choice((1, 2, 50)))


def contexts(chance: random.Random, request: Request) -> None:
    """None, all, one too many, far too many; even and equal IDs."""
    count = chance.choice((0, 1, 127, 128, 129, 300))
    step = chance.choice((0, 1, 2))
    many = [context(1 + step * n, MR, *[IMPLICIT] * chance.choice((0, 1, 3))) for n in range(count)]
    request.items = [item for item in request.items if item.kind != 0x20]
    request.items[1:1] = many


def user_items(chance: random.Random, request: Request) -> None:
    """Sub-items that carry lengths of their own, and lie about them."""
    lie = struct.pack(">H", chance.choice((0, 1, 25, 0x7FFF, 0xFFFF)))
    made = chance.choice(
        (
            Item(0x51, struct.pack(">L", chance.choice(LENGTHS))),
            Item(0x53, struct.pack(">HH", chance.choice((0, 1, 65535)), 65535)),
            Item(0x54, lie + MR + bytes([chance.randrange(256), chance.randrange(256)])),
            Item(0x56, lie + MR + chance.randbytes(9)),
            Item(0x57, lie + MR + lie + ECHO + lie),
            Item(0x58, bytes([chance.randrange(7), 1]) + lie + b"user" + lie + b"secret"),
            Item(0x52, chance.choice(HOSTILE_UIDS)),
        )
    )
    user = [item for item in request.items if item.kind == 0x50]
    if user:
        user[0].items.extend([made] * chance.choice((1, 1, 2, 100)))


def names(chance: random.Random, request: Request) -> None:
    odd = (b"", b" " * 16, b"\0" * 16, b"\xff" * 16, b"PACS\\X", b"A\nB", b"PROSTATE_AI\0", b"pacs")
    if chance.random() < 0.5:
        request.called = chance.choice(odd)
    else:
        request.calling = chance.choice(odd)


def head(chance: random.Random, request: Request) -> None:
    if chance.random() < 0.5:
        request.version = chance.choice((0, 2, 3, 0xFFFF))
    else:
        real = len(request.encode()) - 6
        request.length = max(0, chance.choice((*LENGTHS, real - 1, real - 30, real + 1)))


MUTATIONS: tuple[Callable[[random.Random, Request], None], ...] = (
    item_length, item_kind, item_body, drop, repeat, contexts, user_items, user_items, names, head,
)  # fmt: skip
