"""Whether canaries do worse, and whether a version costs more."""

import math
import random
import sys

import pytest

from trunkline.release.canary import LOOKS, Sample, fisher, judge, read, together
from trunkline.release.performance import CannotMeasure, Cost, mann_whitney, measure

METRICS = """
# HELP trunkline_http_seconds Time to answer API requests
# TYPE trunkline_http_seconds histogram
trunkline_http_seconds_bucket{le="0.1",method="POST",route="/a",status="2xx"} 8
trunkline_http_seconds_bucket{le="+Inf",method="POST",route="/a",status="2xx"} 10
trunkline_http_seconds_count{method="POST",route="/a",status="2xx"} 10
trunkline_http_seconds_sum{method="POST",route="/a",status="2xx"} 1
trunkline_http_seconds_bucket{le="0.1",method="POST",route="/a",status="5xx"} 3
trunkline_http_seconds_bucket{le="+Inf",method="POST",route="/a",status="5xx"} 3
trunkline_http_seconds_count{method="POST",route="/a",status="5xx"} 3
trunkline_http_seconds_sum{method="POST",route="/a",status="5xx"} 1
# TYPE other counter
other_total 5
"""


def sample(requests, errors=0, slow=0):
    return Sample(requests, errors, {0.1: requests - slow, 1.0: requests, math.inf: requests})


def test_a_nodes_metrics_are_read():
    assert read(METRICS) == Sample(13, 3, {0.1: 11, math.inf: 13})
    assert together([read(METRICS), read(METRICS)]) == Sample(26, 6, {0.1: 22, math.inf: 26})


def test_only_what_came_since_counts_also_after_a_restart():
    assert sample(30, 3, 2).since(sample(20, 1, 1)) == Sample(10, 2, {0.1: 9, 1.0: 10, math.inf: 10})
    assert sample(5, 1).since(sample(20, 1)) == sample(5, 1)


def test_fishers_exact_test_against_its_definition():
    """All ways in which 4 bad ones of 12 can fall among 5 and 7."""
    ways = {k: math.comb(4, k) * math.comb(8, 5 - k) for k in range(5)}
    for bad in range(5):
        expected = sum(ways[k] for k in range(bad, 5)) / math.comb(12, 5)
        assert fisher(bad, 5, 4 - bad, 7) == pytest.approx(expected)
    assert fisher(0, 0, 0, 0) == 1.0


def test_alike_is_not_worse_and_worse_is():
    assert judge(sample(1000, 2), sample(3000, 5), 0.01, 500).worse == ""
    assert "more requests fail" in judge(sample(1000, 30), sample(3000, 5), 0.01, 500).worse
    slow = judge(sample(1000, slow=200), sample(3000, slow=60), 0.01, 500)
    assert "longer than 0.1 s" in slow.worse
    assert judge(sample(1000, 0), sample(3000, 90), 0.01, 500).worse == ""  # better


def test_little_traffic_proves_nothing():
    verdict = judge(sample(20, 20), sample(3000), 0.01, 500)
    assert (verdict.is_enough, verdict.worse) == (False, "")


def test_false_alarms_are_as_rare_as_stated():
    draw = random.Random(5)

    def alarm() -> bool:
        old, new = [0, 0], [0, 0]
        for _ in range(LOOKS):
            for group, count in ((old, 60), (new, 30)):
                group[0] += count
                group[1] += sum(draw.random() < 0.05 for _ in range(count))
            if judge(Sample(new[0], new[1]), Sample(old[0], old[1]), 0.05, 30).worse:
                return True
        return False

    assert sum(alarm() for _ in range(200)) <= 20


def test_mann_whitney_against_its_definition():
    assert mann_whitney([4, 5, 6, 7], [0, 1, 2, 3]) == pytest.approx(1 / math.comb(8, 4))
    assert mann_whitney([1, 1, 1, 1], [1, 1, 1, 1]) == 1.0


def test_more_cpu_is_seen_and_noise_is_not():
    assert Cost((1.0, 1.1, 0.9, 1.0, 1.05), (1.2, 1.3, 1.25, 1.15, 1.4)).is_more()
    assert not Cost((1.0, 1.1, 0.9, 1.0, 1.05), (1.02, 1.08, 0.95, 1.0, 1.04)).is_more()
    assert not Cost((1.0, 1.1, 0.9, 1.0), (0.5, 0.5, 0.5, 0.5)).is_more()


def test_runs_are_measured_in_turns(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    command = [
        sys.executable,
        "-S",
        "-c",
        "open('../log', 'a').write(__import__('os').path.basename(__import__('os').getcwd()) + ' ')",
    ]
    cost = measure(tmp_path / "old", tmp_path / "new", command, 4)
    assert (len(cost.old), len(cost.new)) == (4, 4)
    assert (tmp_path / "log").read_text().split()[:6] == ["new", "old", "old", "new", "new", "old"]
    with pytest.raises(CannotMeasure, match="status 3"):
        measure(tmp_path / "old", tmp_path / "new", [sys.executable, "-S", "-c", "raise SystemExit(3)"], 4)
    with pytest.raises(CannotMeasure, match="cannot be run"):
        measure(tmp_path / "old", tmp_path / "new", ["/nowhere/at-all"], 4)
