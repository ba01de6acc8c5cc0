"""Failed logins, counted by source."""

from trunkline.cluster.failed_logins import FailedLogins


def test_sources_are_bounded() -> None:
    failures = FailedLogins(1, 60.0, 10, lambda: 0.0)
    for i in range(100):
        failures.record(f"192.0.2.{i}")
    assert len(failures) == 10
    assert failures.left_s("192.0.2.1") == 0, "forgotten"
    assert failures.left_s("192.0.2.99") == 60


def test_a_window_ends() -> None:
    now = [0.0]
    failures = FailedLogins(2, 60.0, 10, lambda: now[0])
    failures.record("192.0.2.1")
    assert failures.left_s("192.0.2.1") == 0
    failures.record("192.0.2.1")
    now[0] = 59.0
    assert failures.left_s("192.0.2.1") == 1
    now[0] = 60.0
    assert failures.left_s("192.0.2.1") == 0
    failures.record("192.0.2.1")
    assert failures.left_s("192.0.2.1") == 0, "the first of a new window"
