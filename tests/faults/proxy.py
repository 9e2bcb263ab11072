"""A TCP proxy that harms what goes through it, the same for the same seed.

Latency, little bandwidth, small slices, silence, reset, close after so many bytes, a slow close, a
changed byte: each connection gets a plan. What it cannot do is to delay the TCP handshake itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

HARMS = (
    "latency", "bandwidth", "slicer", "blackhole", "reset", "limit", "slow-close", "corrupt",
)  # fmt: skip
_CHUNK = 16_384


@dataclass(frozen=True)
class Plan:
    """What is done to one connection: a harm, in one direction, from a number of bytes on."""

    harm: str = ""
    up: bool = True
    after_bytes: int = 0
    seconds: float = 0.0


def plan(chance: random.Random, harms: tuple[str, ...] = HARMS, most_bytes: int = 60_000) -> Plan:
    """A plan by chance; harms of a place fall early more often."""
    after = int(most_bytes ** chance.random())
    return Plan(chance.choice(harms), chance.random() < 0.6, after, chance.uniform(0.01, 0.2))


class Proxy:
    """Listens on loopback and passes connections on to ``target``; each gets the next plan."""

    def __init__(self, target: int, next_plan: Callable[[], Plan]) -> None:
        self.port = 0
        self.done: Counter[str] = Counter()
        self._target = target
        self._next_plan = next_plan
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._ends: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connected, "127.0.0.1", 0)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for end in self._ends:
            end.transport.abort()
        self._loop.run_until_complete(asyncio.sleep(0.05))  # transports close in the next round
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        harm = self._next_plan()
        self.done[harm.harm] += 1
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = (writer, far_writer)
        self._ends.update(ends)
        none = Plan()
        pumps = (
            _pump(reader, far_writer, harm if harm.up else none, ends),
            _pump(far_reader, writer, none if harm.up else harm, ends),
        )
        with contextlib.suppress(OSError):
            await asyncio.gather(*pumps)
        for end in ends:
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()
        self._ends.difference_update(ends)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, harm: Plan,
    ends: tuple[asyncio.StreamWriter, ...],
) -> None:  # fmt: skip
    passed = 0
    try:
        while data := await reader.read(_CHUNK):
            data = _corrupted(data, passed, harm)
            room = harm.after_bytes - passed
            if harm.harm in ("reset", "limit", "blackhole") and room <= len(data):
                await _break_off(writer, data[: max(0, room)], harm, ends)
                return
            await _pass_on(writer, data, harm)
            passed += len(data)
        if harm.harm == "slow-close":
            await asyncio.sleep(harm.seconds * 5)
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:  # one side was reset: the other hears of it
        for end in ends:
            end.transport.abort()


def _corrupted(data: bytes, passed: int, harm: Plan) -> bytes:
    place = harm.after_bytes - passed
    if harm.harm != "corrupt" or not 0 <= place < len(data):
        return data
    return data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]


async def _pass_on(writer: asyncio.StreamWriter, data: bytes, harm: Plan) -> None:
    size = max(1, harm.after_bytes % 97) if harm.harm == "slicer" else len(data)
    for number, at in enumerate(range(0, len(data), size)):
        if harm.harm == "latency":
            await asyncio.sleep(harm.seconds)
        elif harm.harm == "bandwidth":
            await asyncio.sleep(len(data) / 400_000)
        writer.write(data[at : at + size])
        if number % 50 == 0:
            await writer.drain()
    await writer.drain()


async def _break_off(
    writer: asyncio.StreamWriter, rest: bytes, harm: Plan, ends: tuple[asyncio.StreamWriter, ...]
) -> None:
    writer.write(rest)
    await writer.drain()
    if harm.harm == "blackhole":
        await asyncio.sleep(600)  # nothing more goes through; the ends must give up themselves
    for end in ends:
        if harm.harm == "reset":
            raw: socket.socket = end.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()
        else:
            end.close()
