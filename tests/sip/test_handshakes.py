"""TLS handshakes: how many of one network, and of all."""

import pytest

from trunkline.sip import handshakes
from trunkline.sip.handshakes import BURST, MAX_HANDSHAKES, MAX_NETWORKS, MAX_OF_NETWORK, PER_SECOND, Handshakes


class One:
    def __init__(self, network):
        self.network = network

    def abort(self):
        """Nothing to end."""


def test_a_network_has_its_share_under_way():
    made, first = Handshakes(), One("a")
    assert made.begin(first, 0.0)
    assert all(made.begin(One("a"), 0.0) for _ in range(MAX_OF_NETWORK - 1))
    assert not made.begin(One("a"), 0.0)
    assert made.begin(One("b"), 0.0)
    made.end(first)
    made.end(first)
    assert made.begin(One("a"), 0.0)
    assert len(made) == MAX_OF_NETWORK + 1


def test_a_network_begins_so_many_a_second():
    made, began = Handshakes(), 0
    for step in range(10_000):
        one = One("a")
        began += made.begin(one, step / 1000)
        made.end(one)
    assert began == pytest.approx(BURST + 10 * PER_SECOND, abs=2)
    assert len(made) == 0


def test_of_too_many_the_oldest_gives_way():
    made = Handshakes()
    all_of_them = [One(str(number)) for number in range(MAX_HANDSHAKES + 1)]
    for one in all_of_them[:-1]:
        made.begin(one, 0.0)
    assert made.crowded() is None
    made.begin(all_of_them[-1], 0.0)
    assert made.crowded() is all_of_them[0]


def test_networks_are_forgotten(monkeypatch):
    monkeypatch.setattr(handshakes, "MAX_NETWORKS", 3)
    made = Handshakes()
    for number in range(10):
        one = One(str(number))
        made.begin(one, 0.0)
        made.end(one)
    assert len(made._tokens) == 3
    assert MAX_NETWORKS > 3
    assert made._of == {}
