"""A node of a region that is not active: it waits, and says so to whoever asks over HTTP.

`/healthz` is 200 (the process is well), everything else 503 with Retry-After and the reason; nothing listens for SIP or
SMPP. Reads are refused too: a standby's lag would be read as truth.
"""

import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from trunkline.region.gate import RETRY_AFTER_S, refusal
from trunkline.region.rules import Role, Standing

LOOK_S = 1.0
MAX_BODY_BYTES = 1 << 20
REQUEST_S = 5.0

log = logging.getLogger(__name__)


class NotActive(Exception):
    """This region was replaced: the node must not run. One line."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_S

    def handle_one_request(self) -> None:
        self.close_connection = True
        super().handle_one_request()

    def answer(self) -> None:
        """The same to everybody."""
        length = self.headers.get("Content-Length", "0")
        if length.isdigit() and int(length) <= MAX_BODY_BYTES:
            self.rfile.read(int(length))  # a client that is still sending would see a reset
        text = getattr(self.server, "text", "")
        if self.path == "/healthz":
            status, body = 200, b"ok\n"
        elif self.path == "/readyz":
            status, body = 503, orjson.dumps({"ready": False, "problems": [text], "connectors": {}})
        else:
            status, body = 503, refusal(text)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if status == 200 else "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", str(RETRY_AFTER_S))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""


for _method in ("GET", "HEAD", "POST", "DELETE", "PUT", "PATCH"):
    setattr(_Handler, f"do_{_method}", _Handler.answer)


class _Server(ThreadingHTTPServer):
    text = ""
    request_queue_size = 64

    def server_bind(self) -> None:
        """Without the look-up of a name for the address, which may take long."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, *_: object) -> None:
        """A client that went away."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class Notice:
    """Says on a port what is waited for."""

    def __init__(self, host: str, port: int) -> None:
        """Raises OSError."""
        self._server = (_Server6 if ":" in host else _Server)((host, port), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def say(self, text: str) -> None:
        """From now on."""
        self._server.text = text

    def close(self) -> None:
        """The port is free again."""
        self._server.shutdown()
        self._server.server_close()


def until_active(look: Callable[[], Standing], say: Callable[[str], None], every_s: float = LOOK_S) -> Standing:
    """Wait until this region is the active one (or may become the first). Raises NotActive."""
    told = ""
    while True:
        standing = look()
        if standing.role in (Role.ACTIVE, Role.FIRST):
            return standing
        if standing.role is Role.REPLACED:
            raise NotActive(standing.text)
        say(standing.text)
        if standing.text != told:
            log.warning("waiting: %s", standing.text)
            told = standing.text
        time.sleep(every_s)
