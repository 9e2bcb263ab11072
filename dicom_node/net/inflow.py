"""What comes in on a connection, by a deadline: few system calls, each read acknowledged at once.

Small pieces are read ahead, many at a time; large ones go from the socket straight to their place.
The waits of the kernel are bounded once, so that no read has to set its own: each system call of a
thread lets another thread run, which may keep it waiting.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct

from dicom_node.clock import SystemClock

_CLOCK = SystemClock()  # the kernel's timeouts run on real time too
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux only
_AHEAD_BYTES = 16 * 1024
_TIMEVAL = struct.Struct("@ll")


class Inflow:
    """Reads a connection and writes to it. One thread; only ``connection`` is for others.

    Args:
        connection: connected, TLS or plain; its timeout is set here.
        poll_s: a wait of the kernel; a deadline is kept within so much.
    """

    def __init__(self, connection: socket.socket, poll_s: float) -> None:
        self.connection = connection
        self.deadline_s = 0.0
        """monotonic time until when bytes must come"""
        self._ahead = memoryview(bytearray(_AHEAD_BYTES))
        self._start = self._end = 0
        if isinstance(connection, ssl.SSLSocket):
            connection.settimeout(poll_s)
            return
        connection.settimeout(None)
        seconds = int(poll_s)
        wait = _TIMEVAL.pack(seconds, int((poll_s - seconds) * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, wait)

    def fill(self, view: memoryview) -> None:
        """Read until ``view`` is full.

        Raises:
            OSError: the connection ended, or the deadline passed (``TimeoutError``).
        """
        while len(view):
            view = view[self.some(view) :]

    def some(self, view: memoryview) -> int:
        """Read at least one byte into ``view``; returns how many.

        Raises:
            OSError: the connection ended, or the deadline passed (``TimeoutError``).
        """
        if self._start == self._end:
            if len(view) >= _AHEAD_BYTES:
                return self._receive(view)
            self._start, self._end = 0, self._receive(self._ahead)
        count = min(len(view), self._end - self._start)
        view[:count] = self._ahead[self._start : self._start + count]
        self._start += count
        return count

    def _receive(self, view: memoryview) -> int:
        while _CLOCK.monotonic_s() < self.deadline_s:
            with contextlib.suppress(BlockingIOError, TimeoutError):  # no byte within poll_s
                count = self.connection.recv_into(view)
                if count == 0:
                    raise ConnectionResetError
                if _QUICKACK is not None:  # the kernel clears this option: set after each read
                    self.connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
                return count
        raise TimeoutError("PDU took too long")

    def send(self, data: bytes, limit_s: float) -> None:
        """Send everything within a limit.

        Raises:
            OSError: the connection ended, or the peer did not read (``TimeoutError``).
        """
        rest = memoryview(data)
        end_s = _CLOCK.monotonic_s() + limit_s
        while rest:
            with contextlib.suppress(BlockingIOError, TimeoutError):
                rest = rest[self.connection.send(rest) :]
            if len(rest) and _CLOCK.monotonic_s() > end_s:
                raise TimeoutError("the peer does not read")
