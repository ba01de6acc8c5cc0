"""Where the supervisor takes orders: a Unix socket in the data folder, for this user alone.

A client writes one line of JSON (`do`: `status`, `restart`, `upgrade`, `media`, `back`) and reads lines of JSON until
one says `over`.
"""

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

MAX_CLIENTS: Final = 16
MAX_LINE: Final = 16_384
LISTEN: Final = 8


class Client:
    """One who asks."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.asked = b""

    def tell(self, message: dict[str, Any]) -> bool:
        """One line; False when it cannot be said."""
        try:
            line = json.dumps(message).encode() + b"\n"
            return self.connection.send(line) == len(line)
        except OSError:
            return False


class Desk:
    """See the module. `order(client, message)` is called with each order."""

    def __init__(
        self, path: str, selector: selectors.BaseSelector, order: Callable[[Client, dict[str, Any]], None]
    ) -> None:
        """Raises OSError."""
        self._path = path
        self._selector = selector
        self._order = order
        self.clients: list[Client] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._listener.bind(path)
        except OSError:
            self._listener.close()
            raise
        finally:
            os.umask(before)
        self._listener.listen(LISTEN)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self.clients) >= MAX_CLIENTS:
                connection.close()
                return
            client = Client(connection)
            self.clients.append(client)
            self._selector.register(connection, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            data = client.connection.recv(MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.asked += data
        if not data or len(client.asked) > MAX_LINE:
            self.drop(client)
            return
        line, whole, _ = client.asked.partition(b"\n")
        if not whole:
            return
        client.asked = b""
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if isinstance(message, dict):
            self._order(client, message)
        else:
            self.drop(client)

    def tell(self, message: dict[str, Any]) -> None:
        """Every client."""
        for client in list(self.clients):
            if not client.tell(message):
                self.drop(client)

    def drop(self, client: Client) -> None:
        """Let a client go."""
        if client in self.clients:
            self.clients.remove(client)
            self._selector.unregister(client.connection)
            client.connection.close()

    def close(self) -> None:
        """Take no more orders."""
        for client in list(self.clients):
            self.drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        Path(self._path).unlink(missing_ok=True)
