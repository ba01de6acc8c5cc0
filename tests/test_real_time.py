"""Tests of audio are run again where the machine stood still, and nowhere else."""

import os
import signal
import time
from types import SimpleNamespace

import pytest

from tests import real_time


@pytest.fixture
def attempts(monkeypatch):
    """What `real_time.run` does with a test that fails `fails` times while the witness was so late."""

    def run(fails, late):
        made = []

        def protocol(item, nextitem, log):
            made.append(1)
            return [SimpleNamespace(failed=len(made) <= fails, when="call", user_properties=[])]

        monkeypatch.setattr(real_time, "runtestprotocol", protocol)
        monkeypatch.setattr(real_time, "witness", lambda: SimpleNamespace(late_ms=lambda _since: late))
        monkeypatch.setattr(real_time, "_forget", lambda _item: None)
        (report,) = real_time.run(None, None)
        return report.failed, len(made), len(report.user_properties)

    return run


@pytest.mark.parametrize(
    ("fails", "late", "outcome"),
    [
        (0, [500], (False, 1, 0)),
        (1, [], (True, 1, 0)),
        (1, [20, 29], (True, 1, 0)),
        (1, [30], (False, 2, 1)),
        (2, [25] * 4, (False, 3, 2)),
        (9, [500], (True, 4, 3)),
    ],
)
def test_a_failure_counts_unless_the_cores_were_away(attempts, fails, late, outcome):
    assert attempts(fails, late) == outcome


def test_the_witness_is_late_when_it_is_stopped():
    witness = real_time.Witness()
    time.sleep(0.3)
    witness.late_ms(0)
    began_ms = time.monotonic() * 1000
    os.kill(witness._process.pid, signal.SIGSTOP)
    time.sleep(0.1)
    os.kill(witness._process.pid, signal.SIGCONT)
    for _ in range(1000):
        if any(late >= 80 for late in witness.late_ms(began_ms)):
            break
        time.sleep(0.02)
    else:
        raise AssertionError("a stop of 100 ms was not seen")
    witness._process.kill()
    witness._process.wait()
    witness._process.stdout.close()
