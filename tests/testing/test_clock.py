"""The manual clock."""

from trunkline.testing.clock import START_MS, ManualClock


def test_timers_fire_in_order_at_their_own_time():
    clock, fired = ManualClock(), []
    clock.call_later(2, lambda: fired.append(("b", clock.monotonic())))
    clock.call_later(1, lambda: fired.append(("a", clock.monotonic())))
    clock.call_later(2, lambda: fired.append(("c", clock.monotonic())))
    clock.call_later(1, lambda: fired.append("never")).cancel()
    clock.call_later(1.5, lambda: clock.call_later(0.25, lambda: fired.append(("nested", clock.monotonic()))))
    clock.advance(0.5)
    assert fired == []
    clock.advance(5)
    assert fired == [("a", 1), ("nested", 1.75), ("b", 2), ("c", 2)]
    assert clock.monotonic() == 5.5
    assert clock.now_ms() == START_MS + 5500
