"""Reads an association that carries C-STORE and C-ECHO alone: one thread, blocking, bounded.

The library negotiates; once the association stands and no other service was agreed on, this loop
takes the connection over from its two polling threads. Data goes from the socket straight into
the message, and each read is acknowledged at once (`dicom_node.net.inflow`): senders that write
the header and the body of a PDU apart otherwise wait 40 ms and more for it (Nagle against delayed
acknowledgement).

PS3.8 9.3 (PDUs), PS3.7 9.3 (C-STORE, C-ECHO) and E.1 (command elements).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from pynetdicom import evt
from pynetdicom.association import Association

from dicom_node.clock import SystemClock
from dicom_node.net.inflow import Inflow
from dicom_node.net.limits import ServerLimits

log = logging.getLogger(__name__)

_CLOCK = SystemClock()  # the kernel's timeouts run on real time too
_HANDOVER_POLL_S = 0.0005
_ARTIM_S = 2.0
_POLL_S = 1.0
_KEPT_BYTES = 1 << 20  # of a message buffer, for the next message

# PS3.8 9.3.1: PDU types
_P_DATA, _RELEASE_RQ, _RELEASE_RP, _ABORT = 4, 5, 6, 7
_RELEASE_RP_PDU = struct.pack(">BBLL", _RELEASE_RP, 0, 4, 0)
# PS3.8 9.3.8: source service provider; reasons
_UNEXPECTED_PDU, _INVALID_PARAMETER = 2, 6
# PS3.7 E.1: command fields, command elements of group 0000
_STORE_RQ, _ECHO_RQ, _CANCEL_RQ, _RESPONSE = 0x0001, 0x0030, 0x0FFF, 0x8000
_SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _COMMENT, _SOP_INSTANCE = 0x0800, 0x0900, 0x0902, 0x1000
_NO_DATA_SET = 0x0101
_UNRECOGNIZED_OPERATION = 0x0211  # PS3.7 C.5.23
_ELEMENT = struct.Struct("<HHL")
_PDV = struct.Struct(">LBB")


@dataclass(frozen=True)
class StoreRequest:
    """A C-STORE request. ``data`` is the data set as received, None where there is none."""

    abstract_syntax: str
    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    data: bytes | None


class Watch(Protocol):
    """Bounds that associations share; told what a message holds while it grows."""

    def grown(self, data_bytes: int, begun_s: float) -> None:
        """Note the size of the data set so far, of a message begun at a monotonic time.

        Raises:
            OSError: the association must end.
        """

    def answered(self) -> None:
        """Note that the message is dealt with."""

    def ending(self) -> None:
        """Note that the association ends in order: the answer to the release follows."""


class NoWatch:
    """No bounds beyond those of one association."""

    def grown(self, data_bytes: int, begun_s: float) -> None:
        """Allow."""

    def answered(self) -> None:
        """Nothing is held."""

    def ending(self) -> None:
        """Nobody is told."""


class _ProtocolError(OSError):
    """The peer broke the protocol; ``reason`` goes out in the A-ABORT."""

    def __init__(self, reason: int, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass
class _Message:
    context_id: int = 0
    command: bytearray | None = None
    elements: dict[int, bytes] | None = None
    size: int = 0
    begun_s: float = 0.0


class StorageStream:
    """Serves one association until it is released, aborted or lost.

    Args:
        assoc: the association, negotiated and not yet served.
        limits: bounds of each PDU and message.
        store: answers a C-STORE with status and comment; never raises.
        watch: bounds shared with other associations.
    """

    def __init__(
        self,
        assoc: Association,
        limits: ServerLimits,
        store: Callable[[StoreRequest], tuple[int, str]],
        watch: Watch | None = None,
    ) -> None:
        self._assoc = assoc
        self._limits = limits
        self._store = store
        self._watch = watch or NoWatch()
        self._contexts = {cx.context_id: cx for cx in assoc.accepted_contexts}
        self._longest_out = assoc.requestor.maximum_length or 0
        self._connection: socket.socket = cast(socket.socket, None)  # set by the take-over
        self._in: Inflow = cast(Inflow, None)
        self._message = _Message()
        self._data = bytearray()
        self._head = bytearray(6)

    def run(self) -> None:
        """Take the connection over and serve it. Returns when the association has ended."""
        if not self._take_over():
            self._assoc.kill()
            return
        released = False
        try:
            self._serve()
            released = True
        except _ProtocolError as error:
            log.warning("association ended: %s", error)
            with contextlib.suppress(OSError):
                self._send(struct.pack(">BBLBBBB", _ABORT, 0, 4, 0, 0, 2, error.reason))
        except OSError:
            pass  # gone, aborted or silent
        finally:
            self._finish(released)

    def abort(self, block: bool = True) -> None:
        """End the association from another thread; ``block`` is for the library's callers."""
        connection: socket.socket | None = self._connection
        if connection is None:
            return
        with contextlib.suppress(OSError):
            if not isinstance(connection, ssl.SSLSocket):  # which one thread alone may use
                connection.sendall(struct.pack(">BBLL", _ABORT, 0, 4, 0))
            # not the method of a TLS socket: that one would first drop the encryption
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _take_over(self) -> bool:
        """Stop the library's reading thread once it has sent its acceptance."""
        dul = self._assoc.dul
        end_s = _CLOCK.monotonic_s() + self._limits.associate_s
        while dul.state_machine.current_state != "Sta6":
            if not dul.is_alive() or _CLOCK.monotonic_s() > end_s:
                return False
            _CLOCK.sleep(_HANDOVER_POLL_S)
        dul.kill_dul()
        dul.join()
        connection = dul.socket.socket if dul.socket is not None else None
        if connection is None:
            return False
        poll_s = min(_POLL_S, self._limits.idle_s / 4, self._limits.pdu_s / 4)
        self._connection, self._in = connection, Inflow(connection, poll_s)
        return True

    def _finish(self, released: bool) -> None:
        assoc = self._assoc
        self._watch.answered()
        assoc.is_established = False
        assoc.is_released, assoc.is_aborted = released, not released
        evt.trigger(assoc, evt.EVT_RELEASED if released else evt.EVT_ABORTED, {})
        if released:
            self._await_close()
        if assoc.dul.socket is not None:
            assoc.dul.socket.close()
        assoc.kill()

    def _await_close(self) -> None:
        """Leave it to the peer to close, for a while (PS3.8 9.2.3, state 13)."""
        end_s = _CLOCK.monotonic_s() + _ARTIM_S
        with contextlib.suppress(OSError):
            while (left_s := end_s - _CLOCK.monotonic_s()) > 0:
                self._connection.settimeout(left_s)
                if not self._connection.recv(64):
                    return

    # PDUs

    def _serve(self) -> None:
        while True:
            kind, length = self._read_head()
            if kind == _P_DATA:
                if length > self._limits.pdu_bytes + self._limits.pdu_slack_bytes:
                    raise _ProtocolError(_INVALID_PARAMETER, "PDU longer than allowed")
                self._read_values(length)
            elif kind == _RELEASE_RQ:
                self._watch.ending()
                self._send(_RELEASE_RP_PDU)
                return
            elif kind == _ABORT:
                raise ConnectionAbortedError
            else:
                raise _ProtocolError(_UNEXPECTED_PDU, "unexpected PDU")

    def _read_head(self) -> tuple[int, int]:
        view, inflow = memoryview(self._head), self._in
        inflow.deadline_s = _CLOCK.monotonic_s() + self._limits.idle_s
        done = inflow.some(view)
        inflow.deadline_s = _CLOCK.monotonic_s() + self._limits.pdu_s
        inflow.fill(view[done:])
        kind, _, length = struct.unpack(">BBL", self._head)
        return kind, length

    def _send(self, pdu: bytes) -> None:
        self._in.send(pdu, self._limits.pdu_s)

    # messages

    def _read_values(self, left: int) -> None:
        """Read the presentation data values of a P-DATA-TF (PS3.8 9.3.5 and E.2)."""
        while left:
            if left < 6:
                raise _ProtocolError(_INVALID_PARAMETER, "a PDU ends inside a value")
            self._in.fill(memoryview(self._head))
            length, context_id, control = _PDV.unpack(self._head)
            size = length - 2
            left -= 6 + size
            if size < 0 or left < 0:
                raise _ProtocolError(_INVALID_PARAMETER, "a value is longer than its PDU")
            self._begin(context_id)
            self._watch.grown(self._message.size + size, self._message.begun_s)
            if control & 1:
                self._read_command(size, last=bool(control & 2))
            else:
                self._read_data(size, last=bool(control & 2))

    def _begin(self, context_id: int) -> None:
        message = self._message
        if message.command is None:
            message.command, message.context_id = bytearray(), context_id
            message.begun_s = _CLOCK.monotonic_s()
        if context_id not in self._contexts or context_id != message.context_id:
            raise _ProtocolError(_INVALID_PARAMETER, "a presentation context that is not agreed on")

    def _read_command(self, size: int, *, last: bool) -> None:
        message = self._message
        command = message.command
        if command is None or message.elements is not None:
            raise _ProtocolError(_INVALID_PARAMETER, "a command inside a data set")
        if len(command) + size > self._limits.command_bytes:
            raise _ProtocolError(_INVALID_PARAMETER, "message longer than allowed")
        part = bytearray(size)
        self._in.fill(memoryview(part))
        command += part
        if last:
            message.elements = command_elements(bytes(command))
            if _number(message.elements, _DATA_SET_TYPE, _NO_DATA_SET) == _NO_DATA_SET:
                self._answer(None)

    def _read_data(self, size: int, *, last: bool) -> None:
        message = self._message
        if message.elements is None:
            raise _ProtocolError(_INVALID_PARAMETER, "a data set without its command")
        end = message.size + size
        if end > self._limits.instance_bytes:
            raise _ProtocolError(_INVALID_PARAMETER, "message longer than allowed")
        if end > len(self._data):
            ahead = min(len(self._data), _KEPT_BYTES)
            self._data += bytes(end + ahead - len(self._data))
        with memoryview(self._data) as whole, whole[message.size : end] as part:
            self._in.fill(part)
        message.size = end
        if last:
            with memoryview(self._data) as whole, whole[:end] as part:
                data = bytes(part)
            if len(self._data) > _KEPT_BYTES:
                self._data = bytearray()
            self._answer(data)

    def _answer(self, data: bytes | None) -> None:
        message, self._message = self._message, _Message()
        elements = message.elements or {}
        field = _number(elements, _FIELD, 0)
        if field == _CANCEL_RQ or field & _RESPONSE:
            return
        status, comment = self._status(field, elements, message.context_id, data)
        response = [(_FIELD, struct.pack("<H", field | _RESPONSE)),
                    (_ANSWERED_ID, elements.get(_MESSAGE_ID, b"\0\0")[:2].ljust(2, b"\0")),
                    (_DATA_SET_TYPE, struct.pack("<H", _NO_DATA_SET)),
                    (_STATUS, struct.pack("<H", status))]  # fmt: skip
        if comment and status != 0:
            response.append((_COMMENT, comment.encode("ascii", "replace")[:64]))
        for element in (_SOP_CLASS, _SOP_INSTANCE):
            if element in elements:
                response.append((element, elements[element][:64]))
        self._send_command(message.context_id, encode_command(response))
        self._watch.answered()

    def _status(
        self, field: int, elements: dict[int, bytes], context_id: int, data: bytes | None
    ) -> tuple[int, str]:
        if field == _ECHO_RQ:
            return 0, ""
        if field != _STORE_RQ:
            return _UNRECOGNIZED_OPERATION, "this service is not offered here"
        context = self._contexts[context_id]
        request = StoreRequest(
            str(context.abstract_syntax), str(context.transfer_syntax[0]),
            _uid(elements, _SOP_CLASS), _uid(elements, _SOP_INSTANCE), data,
        )  # fmt: skip
        return self._store(request)

    def _send_command(self, context_id: int, command: bytes) -> None:
        # PS3.8 D.1: the peer's maximum counts what follows the PDU header; 0 is no maximum
        room = max(2, self._longest_out - 6) if self._longest_out else len(command)
        pdus = []
        for start in range(0, len(command), room):
            part = command[start : start + room]
            control = 1 if start + room < len(command) else 3
            value = _PDV.pack(len(part) + 2, context_id, control) + part
            pdus.append(struct.pack(">BBL", _P_DATA, 0, len(value)) + value)
        self._send(b"".join(pdus))


def command_elements(data: bytes) -> dict[int, bytes]:
    """Elements of a command set, by element number (PS3.7 6.3.1: Implicit VR Little Endian).

    Raises:
        OSError: it is none.
    """
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 8 <= len(data):
        group, element, length = _ELEMENT.unpack_from(data, offset)
        if group != 0:
            break
        offset += 8 + length
        found[element] = data[offset - length : offset]
    if offset != len(data) or _FIELD not in found:
        raise _ProtocolError(_INVALID_PARAMETER, "not a command set")
    return found


def encode_command(elements: list[tuple[int, bytes]]) -> bytes:
    """Encode a command set, with its group length; elements in any order."""
    parts = []
    for number, value in sorted(elements):
        padded = value + b"\0" * (len(value) % 2)
        parts.append(_ELEMENT.pack(0, number, len(padded)) + padded)
    body = b"".join(parts)
    return _ELEMENT.pack(0, 0, 4) + struct.pack("<L", len(body)) + body


def _number(elements: dict[int, bytes], element: int, default: int) -> int:
    value = elements.get(element, b"")
    return int.from_bytes(value[:2], "little") if len(value) >= 2 else default


def _uid(elements: dict[int, bytes], element: int) -> str:
    return elements.get(element, b"").decode("latin-1").rstrip("\0 ")
