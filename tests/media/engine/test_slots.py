from trunkline.media.engine import slots as slots_module
from trunkline.media.engine.slots import Slots
from trunkline.media.engine.state import State


def make(known: int = 300, quarantine: int = 10) -> Slots:
    state, _ = State.create(legs=200, slots=400, recordings=1)
    slots = Slots(state, quarantine)
    for slot in range(known):
        slots.offer(slot, 20_000 + 2 * slot)
    return slots


def test_slots_are_leased_ahead_up_to_the_legs() -> None:
    slots = make()
    assert len(slots.lease(200)) == slots_module.LEASE
    assert slots.lease(200) == []
    for slot, _ in slots.leased():
        assert slots.use(slot)
    assert len(slots.lease(200)) == 200 - slots_module.LEASE


def test_as_many_more_are_leased_as_are_taken() -> None:
    slots = make()
    assert len(slots.lease(200)) == slots_module.LEASE
    slots.taken(50)
    assert len(slots.lease(200)) == 50
    slots.taken(150)
    assert len(slots.lease(200)) == 200 - slots_module.LEASE - 50, "no more than there may be legs"


def test_few_are_leased_only_when_few_are_left() -> None:
    slots = make()
    for slot, _ in slots.lease(200)[:5]:
        slots.use(slot)
    assert slots.lease(200) == []
    assert len(slots.lease(200, anew=True)) == 5
    for slot, _ in slots.leased()[: slots_module.PIECE]:
        slots.use(slot)
    assert len(slots.lease(200)) == slots_module.PIECE
    few = make()
    ((first, _), *_) = few.lease(10)
    few.use(first)
    few.rest(first, 0)
    assert len(few.lease(10)) == 1


def test_only_leased_slots_can_be_used() -> None:
    slots = make()
    ((slot, port),) = slots.lease(1)
    assert port == 20_000 + 2 * slot
    assert slots.use(slot)
    assert not slots.use(slot)
    assert not slots.use(299)
    assert not slots.use(-1)
    assert not slots.use(300)


def test_a_slot_rests_for_the_quarantine_and_goes_to_the_end() -> None:
    slots = make(known=3)
    (first, _), *_ = slots.lease(3)
    slots.use(first)
    slots.rest(first, 100)
    slots.wake(109)
    assert first not in dict(slots.lease(3))
    slots.wake(110)
    assert dict(slots.lease(4)).keys() == {first}


def test_it_says_when_sockets_run_short() -> None:
    slots = make(known=slots_module.LEASE)
    assert not slots.short
    slots.lease(1)
    assert slots.short
