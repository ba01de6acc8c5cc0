"""One deadline for a whole stop."""

from trunkline.bootstrap_stop import LAST_S, Grace


def test_the_steps_of_a_stop_share_its_time() -> None:
    now = [100.0]
    grace = Grace(30.0, lambda: now[0])
    now[0] += 1000
    assert grace.left() == 30.0, "nothing has begun"
    grace.begin()
    now[0] += 12
    grace.begin()
    assert grace.left() == 18.0, "it begins once"
    now[0] += 60
    assert grace.left() == LAST_S, "what comes last gets something, too"
    short = Grace(0.5, lambda: now[0])
    short.begin()
    now[0] += 1
    assert short.left() == 0.5
