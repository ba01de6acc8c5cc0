"""Learning runs beside a server that takes calls: what a caller did is done again, and a planted fault is caught."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.voice_app import VoiceApp, response
from tests.learning import planted
from tests.learning.test_run import LIMIT_S, POLL_S, isolated
from trunkline.learning import runs
from trunkline.learning.tally import Tally
from trunkline.testing.local import Local
from trunkline.testing.phones.client import RemotePhone

pytestmark = pytest.mark.slow
if not isolated():
    pytest.skip("no user namespaces here", allow_module_level=True)


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


def learn(trunkline: Local, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = ["--config", str(trunkline.folder / "trunkline.toml"), "--data", str(trunkline.folder / "data")]
    command = [sys.executable, "-m", "trunkline", *where, "learn", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def until(trunkline: Local, name: str, is_so: Callable[[Tally], bool]) -> Tally:
    end = time.monotonic() + LIMIT_S
    while not is_so(tally := runs.found(trunkline.folder / "data", name)[1]):
        assert time.monotonic() < end, tally
        time.sleep(POLL_S)
    return tally


def test_what_callers_did_is_done_again(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    app.answers["/voice"] = response('<Gather numDigits="1" timeout="60" action="/key"><Say>Go on.</Say></Gather>')
    app.answers["/key"] = response("<Say>Thanks.</Say><Redirect>/bye</Redirect>")
    app.answers["/bye"] = response("<Say>Goodbye.</Say><Hangup/>")
    trunkline.answer_at(f"{app.url}/voice")
    (number,) = trunkline.client.incoming_phone_numbers.list(phone_number=trunkline.number)
    number.update(status_callback=f"{app.url}/status")
    same = trunkline.folder / "same.toml"
    same.write_text("[webhooks]\nper_host = 3\n")
    hasty = ["--candidate", "twiml=planted:hasty_parse", "--path", str(Path(planted.__file__).parent)]
    for name, what in (("same", ["--candidate", str(same)]), ("hasty", hasty)):
        done = learn(trunkline, "start", name, *what)
        assert done.returncode == 0, done.stderr
        until(trunkline, name, lambda tally: tally.nodes > 0)
    call = phone.dials()
    call.becomes(lambda state: state.heard_ms > 100)
    call.press("5")
    app.wait("/bye")
    app.wait("/status")
    good = until(trunkline, "same", lambda tally: tally.counts["steps"].agree > 0)
    bad = until(trunkline, "hasty", lambda tally: tally.counts["steps"].disagree > 0)
    report = learn(trunkline, "report", "hasty", "--minimum", "1")
    for name in ("same", "hasty"):
        learn(trunkline, "stop", name, "--remove")
    assert good.counts["twiml"].agree == 3
    assert [good.counts[one].agree for one in ("steps", "requests", "callbacks")] == [1, 1, 1]
    assert sum(count.disagree + count.unclear for count in good.counts.values()) == 0
    assert (bad.counts["twiml"].agree, bad.counts["twiml"].disagree) == (2, 1)
    (steps,) = [one for one in bad.samples if one.aspect == "steps"]
    assert "<Gather>" in steps.production
    assert "<Gather>" not in steps.candidate
    assert report.returncode == 1
    assert runs.names(trunkline.folder / "data") == []
