"""The demo's customer application: webhooks on Python's own HTTP server, checked and answered with Twilio's library.

It answers every inbound message and call with TwiML and notes every status callback. Nothing in it knows Trunkline.
"""

import queue
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]
from twilio.twiml.messaging_response import MessagingResponse  # type: ignore[import-untyped]
from twilio.twiml.voice_response import Gather, VoiceResponse  # type: ignore[import-untyped]

MAX_BODY_BYTES: Final = 64 * 1024
MAX_EVENTS: Final = 1000
"""Events kept until they are read; later ones are dropped."""

WELCOME: Final = "Welcome to the harbour restaurant. Press one to leave us a message."
INVITATION: Final = "Please speak after the tone, and press the hash key at the end."
THANKS: Final = "Thank you. We will call you back."
SORRY: Final = "Sorry, that is not possible."
"""What the application says to those who call."""
REQUEST_TIMEOUT_S: Final = 10.0


class Event(NamedTuple):
    """A webhook that came."""

    kind: str
    """`status` and `inbound` of messages; `voice`, `menu`, `recorded` and `call-status` of calls; `forged` where the
    signature did not fit."""
    fields: dict[str, str]


class MissingEvent(Exception):
    """What was waited for did not come."""


class DemoApp:
    """See the module. `port` 0 lets the system choose one."""

    def __init__(self, auth_token: str, port: int = 0) -> None:
        self.events: queue.Queue[Event] = queue.Queue(MAX_EVENTS)
        self._validator = RequestValidator(auth_token)
        app = self

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                app._post(self)

            def log_message(self, *args: Any) -> None:
                """Silent: the conversation is shown by whoever reads `events`."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def start(self) -> None:
        """Serve, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self, kind: str, timeout_s: float, **wanted: str) -> Event:
        """The next event of a kind with these fields; others before it are passed over. Raises MissingEvent."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            try:
                event = self.events.get(timeout=left)
            except queue.Empty:
                break
            if event.kind == "forged":
                raise MissingEvent(f"a webhook's signature did not fit: {event.fields}")
            if event.kind == kind and wanted.items() <= event.fields.items():
                return event
        raise MissingEvent(f"no {kind} webhook {wanted or ''} within {timeout_s:g} s")

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        length = handler.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            handler.close_connection = True
            _answer(handler, 413, "text/plain", "too large")
            return
        body = handler.rfile.read(int(length)).decode("utf-8", "replace")
        fields = dict(parse_qsl(body, keep_blank_values=True))
        signature = handler.headers.get("X-Twilio-Signature", "")
        if not self._validator.validate(self.url + handler.path, fields, signature):
            self._note(Event("forged", fields))
            _answer(handler, 403, "text/plain", "the signature does not fit")
            return
        kind, answer = PAGES.get(handler.path, ("", None))
        if not kind:
            _answer(handler, 404, "text/plain", "no such page")
            return
        self._note(Event(kind, fields))
        if answer is None:
            _answer(handler, 204, "", "")
        else:
            _answer(handler, 200, "text/xml", answer(fields))

    def _note(self, event: Event) -> None:
        try:
            self.events.put_nowait(event)
        except queue.Full:
            return  # nobody reads them: the demo shows what it can


def reply_to(fields: dict[str, str]) -> str:
    """The TwiML that answers an inbound message."""
    response = MessagingResponse()
    response.message(f"Thank you! We noted: “{fields.get('Body', '')}”")
    return str(response)


def welcome(fields: dict[str, str]) -> str:
    """The TwiML for a call that comes in."""
    response = VoiceResponse()
    gather = Gather(num_digits=1, action="/menu", timeout=10)
    gather.say(WELCOME)
    response.append(gather)
    response.say(SORRY)
    return str(response)


def menu(fields: dict[str, str]) -> str:
    """The TwiML for the key that was pressed."""
    response = VoiceResponse()
    if fields.get("Digits") == "1":
        response.say(INVITATION)
        response.record(action="/recorded", max_length=30, finish_on_key="#", play_beep=True)
    response.say(SORRY)
    return str(response)


def thanks(fields: dict[str, str]) -> str:
    """The TwiML after the message was recorded."""
    response = VoiceResponse()
    response.say(THANKS)
    return str(response)


PAGES: Final[dict[str, tuple[str, Callable[[dict[str, str]], str] | None]]] = {
    "/sms": ("inbound", reply_to),
    "/status": ("status", None),
    "/voice": ("voice", welcome),
    "/menu": ("menu", menu),
    "/recorded": ("recorded", thanks),
    "/call-status": ("call-status", None),
}
"""Path -> what is noted, and what is answered."""


def _answer(handler: BaseHTTPRequestHandler, status: int, content_type: str, text: str) -> None:
    body = text.encode()
    handler.send_response(status)
    if content_type:
        handler.send_header("Content-Type", f"{content_type}; charset=utf-8")
    if status != 204:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
