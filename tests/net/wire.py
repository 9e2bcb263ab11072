"""A DICOM client that does what it is told, written byte by byte (PS3.8 9.3, PS3.7 6.3)."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

IMPLICIT_LE = b"1.2.840.10008.1.2"
MR = b"1.2.840.10008.5.1.4.1.1.4"
_APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"


def item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body)) + body


def associate_rq(calling: str = "PACS", called: str = "PROSTATE_AI") -> bytes:
    context = item(0x20, b"\x01\0\0\0" + item(0x30, MR) + item(0x40, IMPLICIT_LE))
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4"))
    head = struct.pack(">HH", 1, 0) + called.encode().ljust(16) + calling.encode().ljust(16)
    return pdu(1, head + bytes(32) + item(0x10, _APPLICATION_CONTEXT) + context + user)


def element(number: int, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", 0, number, len(value)) + value


def store_rq(sop_instance: bytes, sop_class: bytes = MR) -> bytes:
    """A C-STORE-RQ command set in one P-DATA-TF."""
    command = (
        element(0x0002, sop_class)
        + element(0x0100, struct.pack("<H", 1))
        + element(0x0110, struct.pack("<H", 7))
        + element(0x0700, struct.pack("<H", 0))
        + element(0x0800, struct.pack("<H", 1))
        + element(0x1000, sop_instance)
    )
    return pdata(element(0, struct.pack("<L", len(command))) + command, control=3)


def pdata(data: bytes, control: int) -> bytes:
    return pdu(4, struct.pack(">LBB", len(data) + 2, 1, control) + data)


SOON_S = 8.0
"""For what must not wait for a limit of the port: the shortest of its defaults is 10 s."""
AT_LAST_S = 60.0
"""For what happens sooner or later or, where it is broken, never."""


class Wire:
    """A TCP connection that sends bytes and reads PDUs."""

    def __init__(self, port: int, source: str = "") -> None:
        own = (source, 0) if source else None
        self.socket = socket.create_connection(
            ("127.0.0.1", port), timeout=AT_LAST_S, source_address=own
        )

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def associate(self, calling: str = "PACS") -> Wire:
        self.send(associate_rq(calling))
        kind, _ = self.read_pdu()
        assert kind == 2
        return self

    def read_pdu(self) -> tuple[int, bytes]:
        """The next PDU; (0, b"") when the peer has closed."""
        head = self._read(6)
        if len(head) < 6:
            return 0, b""
        kind, _, length = struct.unpack(">BBL", head)
        return kind, self._read(length)

    def closed_within(self, limit_s: float) -> bool:
        """Whether the peer ends the connection in time; what it still sends is dropped."""
        self.socket.settimeout(limit_s)
        try:
            while self.socket.recv(4096):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                chunk = self.socket.recv(count - len(data))
            except ConnectionError:
                break
            if not chunk:
                break
            data += chunk
        return data


def status_of(response: bytes) -> int:
    """The status in the command set of a C-STORE-RSP."""
    at = response.index(struct.pack("<HHL", 0, 0x0900, 2))
    return int(struct.unpack("<H", response[at + 8 : at + 10])[0])
