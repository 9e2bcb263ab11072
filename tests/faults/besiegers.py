"""Many hostile clients at once, as a program of its own: ``PORT SECONDS``.

They come from the address of an honest peer and from that of a stranger.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

from tests.net.wire import Wire, associate_rq

ADDRESSES = ("127.0.0.1", "127.0.0.2")


def silent(wire: Wire) -> None:
    """F1, F4: says nothing."""


def half(wire: Wire) -> None:
    """F2: a header and one byte."""
    wire.send(associate_rq()[:7])


def endless(wire: Wire) -> None:
    """F3: declares 4 GiB and sends."""
    wire.send(struct.pack(">BBL", 1, 0, 2**32 - 1))
    for _ in range(64):
        wire.send(bytes(1 << 16))


def dripping(wire: Wire) -> None:
    """R7: one byte now and then."""
    for byte in associate_rq():
        wire.send(bytes([byte]))
        time.sleep(0.3)


def gone(wire: Wire) -> None:
    """R8: connects and goes."""
    wire.reset()


def refused(wire: Wire) -> None:
    """R8: a name that nobody knows."""
    wire.send(associate_rq("NOBODY"))
    wire.read_pdu()
    wire.socket.close()


KINDS: tuple[tuple[Callable[[Wire], None], int], ...] = (
    (silent, 40), (half, 40), (endless, 2), (dripping, 20), (gone, 4), (refused, 2),
)  # fmt: skip
"""What they do, and how many of each at a time."""


def besiege(port: int, act: Callable[[Wire], None], source: str, end: float) -> None:
    """Do it again and again; a pause keeps this program from being the load itself."""
    while time.monotonic() < end:
        with contextlib.suppress(OSError), Wire(port, source) as wire:
            act(wire)
            wire.closed_within(1.0)
        time.sleep(0.05)


def main(port: int, seconds: float) -> None:
    """Run all of them until the time is over."""
    socket.setdefaulttimeout(5)
    end = time.monotonic() + seconds
    sources = itertools.cycle(ADDRESSES)
    threads = [
        threading.Thread(target=besiege, args=(port, act, next(sources), end), daemon=True)
        for act, count in KINDS
        for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
