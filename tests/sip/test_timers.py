from trunkline.sip.timers import DEAD_MIN, Timers, Timing


def drain(timers, now):
    fired = []
    while (call := timers.pop(now)) is not None:
        fired.append(call())
    return fired


def test_timers_fire_in_the_order_of_their_time_and_of_setting():
    timers = Timers()
    for due, name in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (1.0, "a2")):
        timers.set(due, lambda name=name: name)
    assert timers.due() == 1.0
    assert drain(timers, 2.0) == ["a", "a2", "b"]
    assert timers.due() == 3.0
    assert len(timers) == 1


def test_cancelled_timers_never_fire_and_do_not_count():
    timers = Timers()
    first, second = timers.set(1.0, lambda: "first"), timers.set(2.0, lambda: "second")
    timers.cancel(first)
    timers.cancel(first)
    timers.cancel(None)
    assert len(timers) == 1
    assert timers.due() == 2.0
    assert drain(timers, 5.0) == ["second"]
    timers.cancel(second)
    assert len(timers) == 0
    assert timers.due() is None


def test_the_heap_is_bounded_by_what_is_alive():
    timers = Timers()
    for number in range(20 * DEAD_MIN):
        timers.cancel(timers.set(1e9 + number, lambda: None))
    assert len(timers) == 0
    assert len(timers._heap) <= DEAD_MIN + 1


def test_the_owner_hears_when_the_earliest_time_moves_forward():
    timers, heard = Timers(), []
    timers.earlier = heard.append
    for due in (5.0, 7.0, 3.0, 4.0):
        timers.set(due, lambda: None)
    assert heard == [5.0, 3.0]


def test_giving_up_takes_64_t1():
    assert Timing().give_up == 32.0
    assert Timing(t1=0.1).give_up == 6.4
