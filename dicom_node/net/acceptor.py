"""Accepts connections for several receiving processes, and keeps the caps over all of them.

One thread, which waits for nothing but the next event and reads nothing that comes over the
network: a connection is counted, then handed to the process that has fewest (SCM_RIGHTS). No
thread means that a process that ended can be forked again at any time.
"""

from __future__ import annotations

import ipaddress
import logging
import selectors
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from dicom_node.net.access import Network, Refusal, parse_address
from dicom_node.net.connections import Connection, Connections
from dicom_node.net.lending import Line, Message, What
from dicom_node.net.limits import ServerLimits
from dicom_node.net.listening import Listener, cannot_listen

log = logging.getLogger(__name__)

_AT_A_TIME = 64


@dataclass(eq=False)
class Handler:
    """A receiving process, as who accepts sees it."""

    line: Line
    ready: bool = False
    problem: str = ""
    """why it could not start"""
    lost: bool = False


@dataclass(eq=False)
class Place(Connection):
    """A connection that was handed to a receiving process."""

    handler: Handler | None = None
    calling_ae: str = ""
    stands: bool = False
    gone: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it takes room."""
        return not self.gone

    @property
    def is_established(self) -> bool:
        """Whether its association was let in and has not ended."""
        return self.stands

    def shut(self) -> None:
        """Have it closed."""
        self.tell(What.SHUT)

    def tell(self, what: What, value: int = 0) -> None:
        """Tell the process that has it."""
        if self.handler is not None:
            self.handler.line.post(Message(what, self.number, value))


class Places(Connections):
    """All connections of the node, whichever process has them."""

    def __init__(self, limits: ServerLimits) -> None:
        super().__init__(limits, self.is_source)
        self.sources: tuple[Network, ...] = ()
        self._places: dict[int, Place] = {}
        self._last = 0

    def is_source(self, address: str) -> bool:
        """Whether a peer sends from an address, as far as the receivers have told."""
        parsed = parse_address(address)
        return any(parsed in block for block in self.sources)

    def place(self, address: str, request: socket.socket, handler: Handler) -> Place:
        """Count a connection from now on."""
        self._last += 1
        place = Place(address, self.is_source(address), request, number=self._last, handler=handler)
        self._places[place.number] = place
        with self._lock:
            self._here.append(place)
        return place

    def find(self, number: int) -> Place | None:
        """Return a connection that takes room."""
        return self._places.get(number)

    def of(self, handler: Handler) -> list[Place]:
        """Return the connections of a process."""
        return [place for place in self._places.values() if place.handler is handler]

    def remove(self, place: Place) -> None:
        """Count it no longer."""
        place.gone = True
        self._places.pop(place.number, None)
        self.leave(place)

    def let_in(self, place: Place, calling_ae: str) -> bool:
        """Whether an association may stand; it counts from now on."""
        standing = [one for one in self._places.values() if one.stands]
        same = [one for one in standing if one.calling_ae == calling_ae]
        limits = self._limits
        if len(standing) >= limits.associations or len(same) >= limits.associations_per_peer:
            return False
        place.calling_ae, place.stands = calling_ae, True
        return True


class Acceptor:
    """The ports, and the lines to the processes that receive. For one thread."""

    def __init__(self, limits: ServerLimits | None = None) -> None:
        self._limits = limits or ServerLimits()
        self._selector = selectors.DefaultSelector()
        self._ports: list[tuple[socket.socket, bool]] = []
        self._listening = False
        self._asking: list[tuple[Handler, Message]] = []
        self.places = Places(self._limits)
        self.handlers: list[Handler] = []

    # processes

    def add(self, line: Line) -> Handler:
        """Serve the line to a process that was just started."""
        handler = Handler(line)
        line.wait_for_nothing()
        self.handlers.append(handler)
        self._selector.register(line, selectors.EVENT_READ, handler)
        return handler

    def _lose(self, handler: Handler) -> None:
        """Forget a process that has ended; the kernel has closed its connections."""
        self._selector.unregister(handler.line)
        handler.line.close()
        handler.lost, handler.ready = True, False
        self.handlers.remove(handler)
        for place in self.places.of(handler):
            self.places.remove(place)

    def close_copies(self) -> None:
        """In a process that was just forked: close what is the acceptor's."""
        self._selector.close()
        for port, _ in self._ports:
            port.close()
        for handler in self.handlers:
            handler.line.close()

    # ports

    def open(self, wanted: Sequence[Listener]) -> list[int]:
        """Open the ports; returns their numbers, in order.

        Raises:
            ConfigError: an address cannot be used.
        """
        for listener in wanted:
            address = (listener.address, listener.port)
            family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
            try:
                port = socket.create_server(address, family=family, backlog=self._limits.backlog)
            except OSError as error:
                self.close_ports()
                raise cannot_listen(listener, error) from error
            port.setblocking(False)
            self._ports.append((port, listener.context is not None))
        return [int(port.getsockname()[1]) for port, _ in self._ports]

    def close_ports(self) -> None:
        """Accept nothing more."""
        self._listen(False)
        for port, _ in self._ports:
            port.close()
        self._ports = []

    def _listen(self, wanted: bool) -> None:
        if wanted == self._listening:
            return
        self._listening = wanted
        for port, over_tls in self._ports:
            if wanted:
                self._selector.register(port, selectors.EVENT_READ, over_tls)
            else:
                self._selector.unregister(port)

    # events

    def step(self, limit_s: float) -> None:
        """Serve what comes within a time, once."""
        # with nobody to receive them, connections wait in the kernel
        self._listen(bool(self._ports) and any(handler.ready for handler in self.handlers))
        for handler in self.handlers:
            unsent = selectors.EVENT_WRITE if handler.line.has_unsent else 0
            self._selector.modify(handler.line, selectors.EVENT_READ | unsent, handler)
        for key, events in self._selector.select(limit_s):
            if isinstance(key.data, bool):
                self._accept(cast(socket.socket, key.fileobj), key.data)
            elif not key.data.lost:
                if events & selectors.EVENT_WRITE:
                    key.data.line.flush()
                if events & selectors.EVENT_READ:
                    self._hear(key.data)
        self._answer()

    def _answer(self) -> None:
        """Answer who asked. What others told before they asked is heard first."""
        while self._asking:
            asked, self._asking = self._asking, []
            for handler in list(self.handlers):
                self._hear(handler)
            for handler, message in asked:
                place = self.places.find(message.number)
                may = place is not None and self.places.let_in(place, message.items[0])
                handler.line.post(Message(What.ANSWER, message.number, may))

    def _accept(self, port: socket.socket, over_tls: bool) -> None:
        try:
            connection, address = port.accept()
        except OSError:  # it is gone already, or there are no descriptors: the next look tells
            return
        with connection:
            handler = self._least_loaded()
            if handler is None:
                return
            if not self.places.make_room(address[0]):
                why = (address[0], Refusal.TOO_MANY_CONNECTIONS.value)
                handler.line.post(Message(What.REFUSED, items=why))
                return
            place = self.places.place(address[0], connection, handler)
            message = Message(What.TAKE, place.number, over_tls, tuple(map(str, address)))
            if not handler.line.lend(message, connection):
                self.places.remove(place)

    def _least_loaded(self) -> Handler | None:
        free = [one for one in self.handlers if one.ready and not one.line.has_unsent]
        return min(free, key=lambda one: len(self.places.of(one)), default=None)

    def _hear(self, handler: Handler) -> None:
        for _ in range(_AT_A_TIME):
            try:
                received = handler.line.receive()
            except BlockingIOError:
                return
            if received is None:
                self._lose(handler)
                return
            self._do(handler, received[0])

    def _do(self, handler: Handler, message: Message) -> None:
        if message.what is What.READY:
            handler.ready = True
        elif message.what is What.FAILED:
            handler.problem = message.items[0]
        elif message.what is What.SOURCES:
            self.places.sources = tuple(ipaddress.ip_network(text) for text in message.items)
        elif message.what is What.ASK:
            self._asking.append((handler, message))
        elif (place := self.places.find(message.number)) is None:
            return  # it had to give way
        elif message.what is What.OVER:
            place.stands = False
        elif message.what is What.GONE:
            self.places.remove(place)
        elif message.what is What.HELD:
            too_much = self.places.hold(place, message.value)
            if too_much is not None:
                cast(Place, too_much).tell(What.END)
