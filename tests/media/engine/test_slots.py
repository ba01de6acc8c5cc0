from trunkline.media.engine import slots as slots_module
from trunkline.media.engine.slots import Slots
from trunkline.media.engine.state import State

LEGS = slots_module.LEASE + 72


def make(known: int = LEGS + 100, quarantine: int = 10) -> Slots:
    state, _ = State.create(legs=LEGS, slots=LEGS + 200, recordings=1)
    slots = Slots(state, quarantine)
    for slot in range(known):
        slots.offer(slot, 20_000 + 2 * slot)
    return slots


def test_slots_are_leased_ahead_up_to_the_legs() -> None:
    slots = make()
    assert len(slots.lease(LEGS)) == slots_module.LEASE
    assert slots.lease(LEGS) == []
    for slot, _ in slots.leased():
        assert slots.use(slot)
    assert len(slots.lease(LEGS)) == LEGS - slots_module.LEASE


def test_as_many_more_are_leased_as_are_taken() -> None:
    slots = make()
    assert len(slots.lease(LEGS)) == slots_module.LEASE
    slots.taken(50)
    assert len(slots.lease(LEGS)) == 50
    slots.taken(slots_module.LEASE)
    assert len(slots.lease(LEGS)) == LEGS - slots_module.LEASE - 50, "no more than there may be legs"


def test_few_are_leased_only_when_few_are_left() -> None:
    slots = make()
    for slot, _ in slots.lease(LEGS)[:5]:
        slots.use(slot)
    assert slots.lease(LEGS) == []
    assert len(slots.lease(LEGS, anew=True)) == 5
    for slot, _ in slots.leased()[: slots_module.PIECE]:
        slots.use(slot)
    assert len(slots.lease(LEGS)) == slots_module.PIECE
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
    assert not slots.use(LEGS + 99)
    assert not slots.use(-1)
    assert not slots.use(LEGS + 100)


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
