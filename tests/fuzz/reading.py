"""What a conversation means, read from all its bytes at once: the other opinion for the stream.

Written from PS3.8 9.3.1, 9.3.5, E.2 and PS3.7 6.3.1, 9.3 and the bounds of `ServerLimits`; it
shares no code with `dicom_node.net.stream`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dicom_node.net.limits import ServerLimits

RELEASED, ABORTED_BY_PEER, GONE = "released", "aborted by the peer", "gone"


@dataclass
class Meaning:
    """Data sets handed over, answers due (context, field, message ID), and how it ends."""

    stores: list[tuple[str, str, bytes | None]] = field(default_factory=list)
    answers: list[tuple[int, int, bytes]] = field(default_factory=list)
    end: str = GONE


class _End(Exception):
    pass


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise _End(GONE)
        self.at += count
        return self.data[self.at - count : self.at]


def meaning(data: bytes, contexts: dict[int, tuple[str, str]], limits: ServerLimits) -> Meaning:
    """Read what a peer sent on an established association until it ends."""
    found = Meaning()
    try:
        _read(_Bytes(data), contexts, limits, found)
    except _End as end:
        found.end = str(end)
    return found


def _refuse(reason: int) -> _End:
    return _End(f"aborted {reason}")


def _read(
    source: _Bytes, contexts: dict[int, tuple[str, str]], limits: ServerLimits, found: Meaning
) -> None:
    message = _Message(contexts, limits, found)
    while True:
        head = source.take(6)
        kind, length = head[0], int.from_bytes(head[2:], "big")
        if kind == 5:
            raise _End(RELEASED)
        if kind == 7:
            raise _End(ABORTED_BY_PEER)
        if kind != 4:
            raise _refuse(2)
        if length > limits.pdu_bytes + limits.pdu_slack_bytes:
            raise _refuse(6)
        while length:
            if length < 6:
                raise _refuse(6)
            told = source.take(6)
            size = int.from_bytes(told[:4], "big") - 2
            length -= 6 + size
            if size < 0 or length < 0:
                raise _refuse(6)
            message.value(told[4], told[5], size, source)


class _Message:
    def __init__(
        self, contexts: dict[int, tuple[str, str]], limits: ServerLimits, found: Meaning
    ) -> None:
        self._contexts, self._limits, self._found = contexts, limits, found
        self._new()

    def _new(self) -> None:
        self._context: int | None = None
        self._command, self._data = b"", b""
        self._elements: dict[int, bytes] | None = None

    def value(self, context: int, control: int, size: int, source: _Bytes) -> None:
        if self._context is None:
            self._context = context
        if context not in self._contexts or context != self._context:
            raise _refuse(6)
        is_command, is_last = control % 2 == 1, control // 2 % 2 == 1
        if is_command != (self._elements is None):
            raise _refuse(6)
        if is_command:
            if len(self._command) + size > self._limits.command_bytes:
                raise _refuse(6)
            self._command += source.take(size)
            if is_last:
                self._elements = _command_set(self._command)
                if self._number(0x0800, 0x0101) == 0x0101:
                    self._end(None)
        else:
            if len(self._data) + size > self._limits.instance_bytes:
                raise _refuse(6)
            self._data += source.take(size)
            if is_last:
                self._end(self._data)

    def _number(self, element: int, default: int) -> int:
        value = (self._elements or {}).get(element, b"")
        return value[0] + 256 * value[1] if len(value) > 1 else default

    def _end(self, data: bytes | None) -> None:
        elements, context = self._elements or {}, self._context or 0
        kind = self._number(0x0100, 0)
        if kind != 0x0FFF and kind < 0x8000:
            if kind == 1:
                uids = [elements.get(n, b"").decode("latin-1") for n in (0x0002, 0x1000)]
                self._found.stores.append((uids[0].rstrip("\0 "), uids[1].rstrip("\0 "), data))
            number = (elements.get(0x0110, b"") + b"\0\0")[:2]
            self._found.answers.append((context, kind | 0x8000, number))
        self._new()


def _command_set(data: bytes) -> dict[int, bytes]:
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        head = data[at : at + 8]
        length = int.from_bytes(head[4:], "little")
        if len(head) < 8 or head[:2] != b"\0\0" or at + 8 + length > len(data):
            raise _refuse(6)
        elements[int.from_bytes(head[2:4], "little")] = data[at + 8 : at + 8 + length]
        at += 8 + length
    if 0x0100 not in elements:
        raise _refuse(6)
    return elements
