"""A whole server over real UDP: an IVR is called, heard, answered with keys, redirected while it speaks, hung up."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import pytest

from trunkline.testing.local import Local

DOCUMENTS = {
    "/voice": (
        "<Gather numDigits='2' action='/chosen' timeout='8'><Say>Welcome to the exchange</Say>"
        "<Play>/tune.wav</Play></Gather><Say>Nothing was pressed</Say>"
    ),
    "/chosen": "<Say>Thank you</Say><Redirect method='GET'>/wait</Redirect>",
    "/wait": "<Say loop='0'>Please hold the line</Say>",
    "/released": "<Say>An agent has become free</Say><Hangup/>",
    "/busy": "<Reject reason='busy'/>",
}


class App(BaseHTTPRequestHandler):
    """The customer's."""

    asked: list[tuple[str, str, dict[str, str]]]

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.asked.append((self.command, path, dict(parse_qsl(f"{query}&{body}", keep_blank_values=True))))
        document = DOCUMENTS.get(path)
        content = f"<Response>{document}</Response>".encode()
        self.send_response(200 if document else 404)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to say."""


@pytest.fixture
def app() -> Iterator[Any]:
    App.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), App)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_ivr(trunkline: Local, phone: Any, app: Any) -> None:
    trunkline.answer_at(f"{app.url}/voice")
    call = phone.dials()
    call.hears("Welcome to the exchange")
    call.press("42")
    call.hears("Thank you")
    call.hears("Please hold the line")
    (sid,) = {params["CallSid"] for _, _, params in App.asked if params}
    trunkline.client.calls(sid).update(url=f"{app.url}/released", method="POST")
    call.hears("An agent has become free")
    call.reaches("ended")
    assert [(method, path) for method, path, _ in App.asked if path != "/tune.wav"] == [
        ("POST", "/voice"), ("POST", "/chosen"), ("GET", "/wait"), ("POST", "/released"),
    ]  # fmt: skip
    chosen = next(params for _, path, params in App.asked if path == "/chosen")
    assert (chosen["Digits"], chosen["CallStatus"], chosen["From"]) == ("42", "in-progress", phone.number)
    until = time.monotonic() + 5
    while (done := trunkline.client.calls(sid).fetch()).status == "in-progress" and time.monotonic() < until:
        time.sleep(0.02)
    assert (done.status, done.direction, done.to) == ("completed", "inbound", trunkline.number)
    alerts = [alert.error_code for alert in trunkline.client.monitor.v1.alerts.list(limit=20)]
    assert "11200" in alerts  # there is no /tune.wav


def test_a_busy_signal(trunkline: Local, phone: Any, app: Any) -> None:
    trunkline.answer_at(f"{app.url}/busy")
    call = phone.dials()
    assert call.rejected_with == 486


def test_a_number_that_is_not_ours(trunkline: Local, phone: Any) -> None:
    assert phone.dials("+12025550199").rejected_with == 404
