"""What is remembered of carriers' ids, and that it has a bound."""

from trunkline.storage.carrier_ids import CarrierIds, Place


def test_the_newest_are_found_and_the_oldest_leave():
    known = CarrierIds(limit=2)
    for number in (1, 2, 3):
        known.remember([("c", str(number))], Place(number, "AC", f"SM{number}"))
    assert known.find("c", "1") is None
    assert known.find("c", "3") == (3, "AC", "SM3")
    assert known.find("d", "3") is None
    known.remember([("c", "3")], Place(9, "AC", "SM9"))
    assert known.find("c", "3") == (9, "AC", "SM9")


def test_what_the_queue_forgets_is_forgotten():
    known = CarrierIds()
    for number in (1, 2, 3):
        known.remember([("c", str(number))], Place(number, "AC", f"SM{number}"))
    known.forget(3)
    assert [known.find("c", str(number)) is not None for number in (1, 2, 3)] == [False, False, True]
