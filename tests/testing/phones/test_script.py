"""A phone played from the terminal, against a server of our own."""

import subprocess
import sys

from trunkline.testing.local import Local

TIMEOUT_S = 60


def phone(trunkline: Local, number: str, *steps: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trunkline", "phone", number, *steps, "--url", trunkline.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def test_a_refused_call_from_the_terminal(trunkline: Local) -> None:
    done = phone(trunkline, trunkline.phone().number, "dials +12025550199", "hears Hello.")
    assert done.returncode == 1
    assert "dials  +12025550199: refused with" in done.stdout
    assert "hears Hello.: not heard within" in done.stderr


def test_an_api_call_is_answered_from_the_terminal(trunkline: Local, tmp_path) -> None:
    number = trunkline.phone().number
    trunkline.client.calls.create(
        to=number, from_=trunkline.number, timeout=30,
        twiml='<Response><Gather numDigits="1"><Say>Hello.</Say></Gather></Response>',
    )  # fmt: skip
    file = tmp_path / "heard.wav"
    steps = ("answers", "hears Hello.", "presses 1", "says Hi", "ends", f"saves {file}")
    done = phone(trunkline, number, *steps)
    assert done.returncode == 0, done.stderr
    shown = [line.split()[0] for line in done.stdout.splitlines()]
    assert shown == ["rings:", "answers", "hears", "presses", "says", "the", "what"]
    assert file.read_bytes().startswith(b"RIFF")


def test_mistakes_are_one_line(trunkline: Local) -> None:
    for steps, said in (
        (["hears x"], "there is no call yet"),
        (["is-on", "dances"], "dances is no step: see `trunkline phone --help`"),
        (["is-busy", "rings 0.1"], "did not ring"),
    ):
        done = phone(trunkline, trunkline.phone().number, *steps)
        assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (1, True, 1)
    command = [sys.executable, "-m", "trunkline", "phone", "+15555550123", "is-on", "--url", "http://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, "does not answer: Connection refused\n" in done.stderr) == (1, True)
