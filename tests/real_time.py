"""Tests of audio in real time, on machines that take their cores away now and then.

What a call sounds like is only promised where the media process and the phones get their 20 ms ticks. A machine that
stops them all for longer, as busy hosts of virtual machines do, is no fault of theirs: such a test says nothing, so it
is run again. Whether that was so is not judged by the test, nor by any process under test: a process of its own, which
does nothing but sleep for 5 ms at a time, notes when it was woken late. A test that fails while that one was on time
has failed. What was run again is told at the end of the run.
"""

import atexit
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache

import pytest
from _pytest.runner import runtestprotocol

REAL_TIME = (
    "tests/bench/test_rtp", "tests/conformance/test_calls", "tests/e2e/test_audio", "tests/e2e/test_calls",
    "tests/e2e/test_customer_trunks", "tests/e2e/test_secure_trunk", "tests/e2e/test_sip_phones",
    "tests/e2e/test_takeover", "tests/interop/test_", "tests/security/test_flood", "tests/security/test_registration",
    "tests/security/test_rtp", "tests/testing/phones/test_", "tests/testing/test_demo", "tests/testing/test_plugin",
)  # fmt: skip
"""Where they are."""
ATTEMPTS = 4
LATE_MS = 30
"""One and a half ticks."""
LATE_SUM_MS = 100
"""Together, of all that were later than WORTH_MS."""
WORTH_MS = 12
AGAIN = "run again"
WITNESS = f"""
import os, time
while os.getppid() == {{parent}}:
    before = time.monotonic()
    time.sleep(0.005)
    late_ms = (time.monotonic() - before - 0.005) * 1000
    if late_ms > {WORTH_MS}:
        os.write(1, b"%d %d\\n" % (before * 1000, late_ms))
"""


class Witness:
    """The process that sleeps. It ends with this one."""

    def __init__(self) -> None:
        code = WITNESS.format(parent=os.getpid())
        self._process = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdout is not None
        atexit.register(self._process.kill)
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)

    def late_ms(self, since_ms: float) -> list[int]:
        """How late it was woken each time since then (monotonic ms)."""
        return [late for at, late in self._lines() if at + late >= since_ms]

    def _lines(self) -> Iterator[tuple[int, int]]:
        text = b""
        while True:
            try:
                piece = os.read(self._output, 65536)
            except BlockingIOError:
                break
            if not piece:
                break
            text += piece
        for line in text.decode().splitlines():
            at, late = line.split()
            yield int(at), int(late)


@cache
def witness() -> Witness:
    """The one of this process of tests."""
    return Witness()


def run(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """The reports of a test's last attempt."""
    watch = witness()
    attempts: list[str] = []
    while True:
        began_ms = time.monotonic() * 1000
        reports: list[pytest.TestReport] = runtestprotocol(item, nextitem=nextitem, log=False)
        late = watch.late_ms(began_ms)
        failed = any(report.failed for report in reports)
        away = bool(late) and (max(late) >= LATE_MS or sum(late) >= LATE_SUM_MS)
        if not (failed and away) or len(attempts) + 1 >= ATTEMPTS:
            break
        attempts.append(f"cores were away {len(late)} times, {max(late)} ms at most, {sum(late)} ms in all")
        _forget(item)
    for report in reports:
        report.user_properties += [(AGAIN, text) for text in attempts if report.when == "call" or report.failed]
    return reports


def _forget(item: pytest.Item) -> None:
    """So that it can run once more: its own state, and what its fixtures failed with."""
    item._initrequest()  # type: ignore[attr-defined]
    for definitions in item._fixtureinfo.name2fixturedefs.values():  # type: ignore[attr-defined]
        for one in definitions:
            if one.cached_result is not None and one.cached_result[2] is not None:
                one.finish(item._request)  # type: ignore[attr-defined]
