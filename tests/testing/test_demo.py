"""The demo, as its reader runs it."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import wave
from pathlib import Path
from urllib.parse import urlencode

import pytest
from twilio.request_validator import RequestValidator

from trunkline.testing.demo_app import INVITATION, WELCOME, DemoApp, MissingEvent, reply_to
from trunkline.testing.demo_calls import GREETING, MESSAGE
from trunkline.testing.demo_server import DemoFailed, DemoServer

TIMEOUT_S = 120
COMMAND = [sys.executable, "-m", "trunkline.testing.demo", "--port", "0", "--speech", "tones"]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "300", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def shown_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run from begin to end: its folder, what it showed."""
    folder = tmp_path_factory.mktemp("run") / "demo"
    done = subprocess.run(
        [*COMMAND, "--once", "--data", str(folder)],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_it_runs_through(shown_once):
    folder, shown = shown_once
    for step in ("queued", "delivered", "phone shows", "signature verified", "outbound-reply", "It works."):
        assert step in shown
    assert shown.index("queued") < shown.index("delivered") < shown.index("signature verified")
    steps = (f"phone hears  ♪ {WELCOME}", f"phone hears  ♪ {INVITATION}", "the beep", "phone says", "message.wav")
    steps += (f"phone hears  ♪ {GREETING}", f"phone hears  ♪ {MESSAGE}", "in-progress", "outbound-api")
    assert [step for step in steps if step not in shown] == []
    assert sorted(steps[:-1], key=shown.index) == list(steps[:-1])
    with wave.open(str(folder / "message.wav")) as message:
        assert message.getnframes() > 4000


def test_the_printed_program_works_and_the_account_stays(shown_once):
    folder, _ = shown_once
    with subprocess.Popen(
        [*COMMAND, "--data", str(folder)],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as demo:  # fmt: skip
        lines = []
        try:
            for line in demo.stdout:
                lines.append(line)
                if "what happens from now on" in line:
                    break
            shown = "".join(lines)
            assert "from twilio.rest" in shown, shown
            start, end = shown.index("from twilio.rest"), shown.index("# The phone sends")
            done = subprocess.run(
                [sys.executable, "-c", shown[start:end]], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("SM")
            for line in demo.stdout:
                if "Hello from my own program" in line:
                    break
            else:
                pytest.fail("the demo ended")
            with pytest.raises(DemoFailed, match="another demo"):
                DemoServer(folder, 0)
        finally:
            demo.send_signal(signal.SIGINT)
            rest = demo.stdout.read()
            assert demo.wait(TIMEOUT_S) == 0, rest
    accounts = {line.split()[2] for line in shown.splitlines() if line.startswith("Account SID")}
    again = DemoServer(folder, 0)
    assert {again.account()[0]} == accounts
    again.stop()


def test_it_fails_loudly(tmp_path):
    (tmp_path / "data").write_text("no folder")
    done = subprocess.run(
        [*COMMAND, "--once", "--data", str(tmp_path)],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "The demo failed" in done.stdout


# -- the application ------------------------------------------------------------------------------------------------


@pytest.fixture
def app():
    app = DemoApp("secret")
    app.start()
    yield app
    app.stop()


def post(app: DemoApp, path: str, fields: dict[str, str], signature: str | None = None) -> tuple[int, str]:
    if signature is None:
        signature = RequestValidator("secret").compute_signature(app.url + path, fields)
    request = urllib.request.Request(app.url + path, urlencode(fields).encode(), {"X-Twilio-Signature": signature})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_the_application_replies_in_twiml(app):
    status, text = post(app, "/sms", {"Body": "<Hi> & “bye”", "From": "+1"})
    assert status == 200
    assert text == reply_to({"Body": "<Hi> & “bye”"})
    assert "&lt;Hi&gt; &amp; “bye”" in text
    assert app.wait("inbound", 1).fields["From"] == "+1"


def test_the_application_answers_calls(app):
    status, text = post(app, "/voice", {"CallSid": "CA1", "From": "+1"})
    assert (status, WELCOME in text, "<Gather" in text) == (200, True, True)
    assert "<Record" in post(app, "/menu", {"CallSid": "CA1", "Digits": "1"})[1]
    assert "<Record" not in post(app, "/menu", {"CallSid": "CA1", "Digits": "2"})[1]
    assert "<Say>" in post(app, "/recorded", {"CallSid": "CA1"})[1]
    assert post(app, "/call-status", {"CallSid": "CA1"})[0] == 204
    assert app.wait("menu", 1, Digits="2").fields["CallSid"] == "CA1"


def test_the_application_refuses_forged_webhooks(app):
    assert post(app, "/sms", {"Body": "x"}, "wrong")[0] == 403
    with pytest.raises(MissingEvent, match="signature"):
        app.wait("inbound", 1)


def test_the_application_waits_for_the_right_event(app):
    assert post(app, "/status", {"MessageSid": "SM1", "MessageStatus": "sent"})[0] == 204
    assert post(app, "/status", {"MessageSid": "SM2", "MessageStatus": "sent"})[0] == 204
    assert app.wait("status", 1, MessageSid="SM2").fields["MessageStatus"] == "sent"
    with pytest.raises(MissingEvent, match="no status"):
        app.wait("status", 0.01, MessageSid="SM1")
    assert post(app, "/other", {})[0] == 404
