"""The table of faults: complete, told apart, chosen by name."""

import pytest
from lab.fault import Fault
from lab.faults import FAULTS
from lab.system import Failed

from lab import chaos, faults, patroni


def concrete(kind: type[Fault]) -> set[type[Fault]]:
    """It and what is made of it, as far as it has a name of its own."""
    found = {kind} if "name" in vars(kind) else set()
    return found.union(*(concrete(one) for one in kind.__subclasses__()))


def test_every_fault_is_in_the_table() -> None:
    assert concrete(Fault) == set(FAULTS.values())
    assert {name: kind.name for name, kind in FAULTS.items()} == {name: name for name in FAULTS}


@pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in FAULTS.items()])
def test_every_fault_says_what_it_does(kind: type[Fault]) -> None:
    assert kind.what
    assert kind.inject is not Fault.inject


def test_a_primarys_loss_lasts_longer_than_the_ttl() -> None:
    for kind in (faults.KillStoreHost, faults.KillZone, faults.Cut, faults.PartialCut, faults.StopStore):
        assert kind.hold_s > patroni.TTL_S


def test_faults_are_chosen_by_name() -> None:
    assert chaos.chosen("kill-zone, partial-cut") == [faults.KillZone, faults.PartialCut]
    assert chaos.chosen("") == list(FAULTS.values())
    with pytest.raises(Failed, match="no fault zone"):
        chaos.chosen("zone")
