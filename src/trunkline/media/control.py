"""The media process's side of the control protocol: one node at a time, bounded buffers, nothing that blocks.

Events with a number wait in `_unseen` until the node says that it has seen them, and are told again to the next
connection. A frame that cannot be read is answered with `Refused` where it had a number; a stream that cannot be read
on loses its connection. A new node that attaches takes the place of the one before.
"""

import contextlib
import logging
import os
import select
import socket
import time
from collections import deque
from pathlib import Path
from typing import Final

import msgspec

from trunkline.media import protocol
from trunkline.media.engine.commands import carry_out
from trunkline.media.engine.engine import Engine
from trunkline.media.wire import Deframer, FrameTooLong, decode_command, decode_numbered, frame

logger = logging.getLogger(__name__)

READ_BYTES: Final = 256 * 1024
MAX_UNREAD: Final = 8 << 20
"""Bytes of commands taken in but not carried out; beyond it the node has to wait."""
MAX_UNSENT: Final = 16 << 20
"""Bytes of events for a node that does not read; beyond it its connection ends (the events stay)."""
MAX_CONNECTIONS: Final = 8


class Connection:
    """One node's connection; `attached` once it has said so."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.deframer = Deframer()
        self.unsent = bytearray()
        self.attached = False
        self.open = True
        self.told_of_room = False
        """Whether the poll tells when more can be sent."""


class Control:
    """Listens at a path and serves an engine. The process's loop calls `poll`, `work` and `flush`."""

    def __init__(self, path: str, engine: Engine, epoll: select.epoll) -> None:
        self._engine = engine
        self._epoll = epoll
        self._path = path
        self._unseen: deque[protocol.Event] = deque(maxlen=protocol.MAX_UNSEEN)
        self._connections: dict[int, Connection] = {}
        self._node: Connection | None = None
        self._told_done = engine.state.done
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(before)
        self._listener.listen(MAX_CONNECTIONS)
        self._listener.setblocking(False)
        epoll.register(self._listener, select.EPOLLIN)

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._epoll.unregister(self._listener)
        self._listener.close()

    # -- input

    def ready(self, fd: int, mask: int) -> None:
        """The process's poll reported one of ours (others are ignored)."""
        if fd == self._listener.fileno():
            self._accept()
            return
        connection = self._connections.get(fd)
        if connection is None:
            return
        if mask & select.EPOLLOUT:
            self._push(connection)
        if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read(connection)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            sock.close()
            return
        sock.setblocking(False)
        self._connections[sock.fileno()] = Connection(sock)
        self._epoll.register(sock, select.EPOLLIN)

    def _read(self, connection: Connection) -> None:
        if connection.deframer.held > MAX_UNREAD:
            return
        try:
            data = connection.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            connection.deframer.feed(data)
        else:
            self._drop(connection)

    def work(self, until_ns: int) -> bool:
        """Carry out commands until the monotonic clock says so; whether there are more."""
        for connection in list(self._connections.values()):
            try:
                while connection.open and (body := connection.deframer.next()) is not None:
                    self._command(connection, body)
                    if time.monotonic_ns() >= until_ns:
                        return True
            except FrameTooLong as error:
                logger.warning("a node's connection ends: %s", error)
                self._drop(connection)
        return False

    def _command(self, connection: Connection, body: bytes) -> None:
        try:
            command = decode_command(body)
        except (msgspec.DecodeError, RecursionError) as error:
            self._not_understood(connection, body, str(error))
            return
        if isinstance(command, protocol.Attach):
            self._attach(connection, command)
        elif not connection.attached:
            self._drop(connection)
        elif isinstance(command, protocol.Seen):
            while self._unseen and self._unseen[0].event <= command.event:
                self._unseen.popleft()
        elif isinstance(command, protocol.Taken):
            self._engine.slots.taken(command.count)
        elif not 0 < command.n <= self._engine.state.done:
            try:
                carry_out(self._engine, command)
            except Exception:
                # Were it not counted as done, it would end every successor as well.
                logger.exception("a command failed: %s", type(command).__name__)
                self._refuse(command.n, str(type(command).__struct_config__.tag), "internal error")

    def _refuse(self, number: int, what: str, reason: str) -> None:
        self._engine.tell(protocol.Refused(command=number, what=what, reason=reason))
        self._engine.state.done = max(number, self._engine.state.done)

    def _not_understood(self, connection: Connection, body: bytes, reason: str) -> None:
        try:
            head = decode_numbered(body)
        except (msgspec.DecodeError, RecursionError):
            head = None
        if head is None or not connection.attached:
            logger.warning("a node's connection ends: %s", reason)
            self._drop(connection)
        elif head.n > self._engine.state.done:
            self._refuse(head.n, head.t, f"not understood: {reason}")

    def _attach(self, connection: Connection, attach: protocol.Attach) -> None:
        engine = self._engine
        if self._node is not None and self._node is not connection:
            self._drop(self._node)
        self._node = connection
        connection.attached = True
        while self._unseen and self._unseen[0].event <= attach.last_seen:
            self._unseen.popleft()
        state = engine.state
        hello = protocol.Hello(version=protocol.VERSION, done=state.done, epoch=state.epoch, legs=engine.snapshot())
        self._write(connection, self._fitting(hello))
        for event in list(self._unseen):
            self._write(connection, frame(event))
        engine.slots.lease(engine.settings.legs, anew=True)  # told last: then the node has heard all that happened
        self._write(connection, frame(protocol.Ports(slots=engine.slots.leased())))

    @staticmethod
    def _fitting(hello: protocol.Hello) -> bytes:
        """As one frame; with very many legs without what can be asked anew, at last without the legs."""
        for legs in (hello.legs, [protocol.LegState(leg=leg.leg, slot=leg.slot) for leg in hello.legs], []):
            try:
                return frame(msgspec.structs.replace(hello, legs=legs))
            except FrameTooLong:
                continue
        return frame(protocol.Hello(version=hello.version, done=hello.done, epoch=hello.epoch))

    # -- output

    def flush(self) -> None:
        """Tell what happened since the last time."""
        engine, node = self._engine, self._node
        events, data = engine.events, bytearray()
        for event in events:
            if event.event:
                self._unseen.append(event)
            if node is not None:
                data += frame(event)
        events.clear()
        if node is None:
            return
        done = engine.state.done
        if done != self._told_done:
            self._told_done = done
            data += frame(protocol.Done(done=done))
        slots = engine.slots.lease(engine.settings.legs)
        if slots:
            data += frame(protocol.Ports(slots=slots))
        if data:
            self._write(node, data)

    def _write(self, connection: Connection, data: bytes | bytearray) -> None:
        if not connection.open:
            return
        idle = not connection.unsent
        connection.unsent += data
        if idle:
            self._push(connection)
        if len(connection.unsent) > MAX_UNSENT:
            logger.warning("a node does not read its events: its connection ends")
            self._drop(connection)

    def _push(self, connection: Connection) -> None:
        try:
            while connection.unsent:
                sent = connection.sock.send(connection.unsent)
                del connection.unsent[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        waits = bool(connection.unsent)
        if waits is not connection.told_of_room:
            connection.told_of_room = waits
            self._epoll.modify(connection.sock, select.EPOLLIN | (select.EPOLLOUT if waits else 0))

    def _drop(self, connection: Connection) -> None:
        if not connection.open:
            return
        connection.open = False
        self._connections.pop(connection.sock.fileno(), None)
        with contextlib.suppress(OSError):
            self._epoll.unregister(connection.sock)
        connection.sock.close()
        if self._node is connection:
            self._node = None
