"""A customer's voice application: a web server in a thread that answers with TwiML and keeps what it was sent."""

import threading
import time
from collections.abc import Callable, Collection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

WAIT_S = 60.0
POLL_S = 0.02

Answer = str | Callable[[dict[str, str]], str]


class Hook(NamedTuple):
    """One request."""

    path: str
    form: dict[str, str]


class VoiceApp:
    """`answers`: path -> TwiML, or a function of the form; `files`: path -> content type and octets; else 204."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.hooks: list[Hook] = []
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:
                app._serve(self)

            def do_GET(self) -> None:
                app._serve(self)

            def log_message(self, *args: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def at(self, path: str) -> list[dict[str, str]]:
        """The forms that came to one path."""
        return [hook.form for hook in self.hooks if hook.path == path]

    def wait(self, path: str, count: int = 1, timeout_s: float = WAIT_S) -> list[dict[str, str]]:
        """The forms at a path once there are so many."""
        until = time.monotonic() + timeout_s
        while len(self.at(path)) < count:
            assert time.monotonic() < until, f"{path} got {self.at(path)}; in all {[h.path for h in self.hooks]}"
            time.sleep(POLL_S)
        return self.at(path)

    def wait_calls(self, path: str, sids: Collection[str], timeout_s: float = WAIT_S) -> None:
        """Until each of these calls was told of at a path; one may be told of twice."""
        until = time.monotonic() + timeout_s
        while missing := set(sids).difference(form["CallSid"] for form in self.at(path)):
            assert time.monotonic() < until, f"{path} was not told of {missing}"
            time.sleep(POLL_S)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        length = int(handler.headers.get("Content-Length", "0"))
        form = dict(parse_qsl(parts.query) + parse_qsl(handler.rfile.read(length).decode(), keep_blank_values=True))
        path = parts.path
        if path in self.files:
            kind, body = self.files[path]
        else:
            answer = self.answers.get(path, "")
            text = answer if isinstance(answer, str) else answer(form)
            kind, body = "text/xml", text.encode()
        self.hooks.append(Hook(path, form))
        handler.send_response(200 if body else 204)
        if body:
            handler.send_header("Content-Type", kind)
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


def response(*verbs: str) -> str:
    """A TwiML document."""
    return f'<?xml version="1.0" encoding="UTF-8"?><Response>{"".join(verbs)}</Response>'
