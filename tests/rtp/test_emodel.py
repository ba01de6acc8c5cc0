from trunkline.rtp.emodel import mos, rating


def test_a_clean_call_is_very_good_and_loss_and_delay_make_it_worse() -> None:
    assert rating(0, 0) == 93.2
    assert 4.3 < mos(0, 60) < 4.5
    assert mos(0.05, 60) < mos(0.01, 60) < mos(0, 60)
    assert mos(0, 400) < mos(0, 150) < mos(0, 50)


def test_it_stays_in_bounds() -> None:
    assert mos(1, 5000) == 1.0
    assert mos(-1, 0) <= 4.5
