import time

from trunkline.cluster.fence import ALWAYS_OPEN, Fence, boottime_ns, margin_ns

MS = 1_000_000


class Now:
    def __init__(self) -> None:
        self.ns = 10_000 * MS

    def __call__(self) -> int:
        return self.ns


def test_it_is_closed_until_the_first_renewal_and_after_the_deadline() -> None:
    now = Now()
    fence = Fence(now)
    assert not fence.open
    fence.extend(now.ns, 1000)
    assert fence.deadline_ns == now.ns + 900 * MS
    now.ns += 899 * MS
    assert fence.open
    now.ns += 1 * MS
    assert not fence.open


def test_the_lease_counts_from_the_beginning_of_the_renewal_and_never_gets_shorter() -> None:
    now = Now()
    fence = Fence(now)
    fence.extend(now.ns, 1000)
    deadline = fence.deadline_ns
    fence.extend(now.ns - 500 * MS, 1000)
    assert fence.deadline_ns == deadline
    fence.extend(now.ns - 2000 * MS, 1000)
    assert fence.deadline_ns == deadline


def test_a_renewal_that_took_longer_than_the_lease_opens_nothing() -> None:
    now = Now()
    told: list[str] = []
    fence = Fence(now)
    fence.on_open.append(lambda: told.append("open"))
    fence.extend(now.ns - 1000 * MS, 1000)
    assert not fence.open
    assert told == []


def test_it_tells_once_when_it_closes_and_opens_and_counts_what_it_held_back() -> None:
    now = Now()
    told: list[object] = []
    fence = Fence(now)
    fence.on_open.append(lambda: told.append("open"))
    fence.on_close.append(lambda: told.append("closed"))
    fence.on_extend.append(told.append)
    fence.extend(now.ns, 1000)
    fence.extend(now.ns + 1, 1000)
    assert fence.passes()
    now.ns += 2000 * MS
    assert not fence.passes()
    assert not fence.passes()
    assert (fence.check(), fence.check()) == (False, False)
    fence.extend(now.ns, 1000)
    fence.close()
    assert told == [
        10_900 * MS, "open", 10_900 * MS + 1, "closed", 12_900 * MS, "open", 0, "closed",
    ]  # fmt: skip
    assert (fence.held_back, fence.closings) == (2, 2)


def test_short_leases_give_away_at_least_the_least_margin() -> None:
    assert margin_ns(1000) == 100 * MS
    assert margin_ns(50) == 20 * MS


def test_the_clock_is_boottime_and_a_single_nodes_gate_is_always_open() -> None:
    assert abs(boottime_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) < 10**9
    assert ALWAYS_OPEN.open
    assert ALWAYS_OPEN.passes()
