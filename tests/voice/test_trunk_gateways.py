"""Which gateways are tried in which order, and what makes one be tried last."""

import logging
from collections import Counter
from random import Random

import pytest

from trunkline.settings import Gateway, Trunk
from trunkline.sip.flow import Target
from trunkline.voice.trunk_gateways import DOWN_AFTER, MAX_ENDPOINTS, RETRY_S, UP_AFTER, Gateways, where
from trunkline.voice.trunks import MAX_WAYS, Trunks

TO = "+14155550199"
A, B, C, D = (f"sip:10.0.0.{n}" for n in range(1, 5))


def order(*gateways: str | Gateway, seed: int = 7) -> list[str]:
    made = Gateways(Trunk(name="t", gateways=gateways), Random(seed), 0.0)
    return [str(one.uri) for one in made.order()]


def test_a_list_is_tried_in_its_order() -> None:
    assert order(A, B, C) == [A, B, C]


def test_priorities_come_first_highest_before_lowest() -> None:
    assert order(A, Gateway(uri=B, priority=1), C, Gateway(uri=D, priority=5)) == [D, B, A, C]


def test_equals_share_by_weight() -> None:
    made = Gateways(
        Trunk(name="t", gateways=(Gateway(uri=A, priority=1, weight=3), Gateway(uri=B, priority=1), C)), Random(7), 0.0
    )
    firsts = Counter(str(made.order()[0].uri) for _ in range(4000))
    assert 0.70 < firsts[A] / 4000 < 0.80
    assert C not in firsts


def ways(trunks: Trunks) -> list[str]:
    return [way.host for way in trunks.ways(TO)]


def test_what_is_down_is_tried_last_of_all_trunks(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    both = (
        Trunk(name="first", gateways=(A, B), prefixes=("+1",), options_ping_s=30),
        Trunk(name="second", gateways=(C,), prefixes=("",)),
    )
    trunks = Trunks(both, Random(1), 0.0, lambda: now[0])
    changes: list[int] = []
    gateway = trunks.gateways["first"].all[0]
    gateway.watch(lambda: changes.append(1), pinged=True)
    (endpoint,) = gateway.endpoints
    for _ in range(DOWN_AFTER - 1):
        endpoint.failed(1.0, "no answer to OPTIONS")
    assert ways(trunks) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            endpoint.failed(1.0, "no answer to OPTIONS")
    assert ways(trunks) == ["10.0.0.2", "10.0.0.3", "10.0.0.1"]
    now[0] = 10 * RETRY_S  # it is asked: what it answers counts, not the time
    assert ways(trunks)[-1] == "10.0.0.1"
    with caplog.at_level(logging.INFO):
        for _ in range(UP_AFTER):
            endpoint.answered(2.0)
    assert ways(trunks)[0] == "10.0.0.1"
    assert len(changes) == 2
    assert [record.message for record in caplog.records] == [
        "trunk first: sip:10.0.0.1 (10.0.0.1:5060) is down: no answer to OPTIONS; it is tried last",
        "trunk first: sip:10.0.0.1 (10.0.0.1:5060) is up again",
    ]


def test_one_failure_between_answers_changes_nothing() -> None:
    (endpoint,) = Gateways(Trunk(name="t", gateways=(A,)), Random(1), 0.0).all[0].endpoints
    for _ in range(10):
        endpoint.failed(0.0, "x")
        endpoint.answered(0.0)
    assert endpoint.is_up


def test_one_that_nobody_asks_gets_its_place_back() -> None:
    now = [0.0]
    trunks = Trunks((Trunk(name="t", gateways=(A, B)),), Random(1), 0.0, lambda: now[0])
    (endpoint,) = trunks.gateways["t"].all[0].endpoints
    for _ in range(DOWN_AFTER):
        endpoint.failed(0.0, "no answer to an INVITE")
    assert ways(trunks) == ["10.0.0.2", "10.0.0.1"]
    now[0] = RETRY_S
    assert ways(trunks) == ["10.0.0.1", "10.0.0.2"]
    endpoint.failed(now[0], "no answer to an INVITE")  # one call has found it dead: the next ones do not wait for it
    assert ways(trunks) == ["10.0.0.2", "10.0.0.1"]
    now[0] *= 2
    assert ways(trunks) == ["10.0.0.1", "10.0.0.2"]


def test_a_name_stands_for_several_addresses_and_what_is_known_of_them_stays() -> None:
    trunk = Trunk(name="t", gateways=("sip:carrier.example",))
    trunks = Trunks((trunk,), Random(1), 0.0)
    gateway = trunks.gateways["t"].all[0]
    one, two = (Target("UDP", f"192.0.2.{n}", 5060, "carrier.example") for n in (1, 2))
    trunks.reached(trunk, gateway, [one, two], 0.0)
    assert ways(trunks) == ["192.0.2.1", "192.0.2.2"]
    assert {str(way.uri) for way in trunks.ways(TO)} == {f"sip:{TO}@carrier.example"}
    for _ in range(DOWN_AFTER):
        gateway.endpoints[0].failed(0.0, "x")
    trunks.reached(trunk, gateway, [one, two], 0.0)
    assert ways(trunks) == ["192.0.2.2", "192.0.2.1"]
    trunks.reached(trunk, gateway, [], 0.0)
    assert len(ways(trunks)) == 2


def test_nothing_grows_without_a_bound() -> None:
    many = Trunk(name="t", gateways=tuple(f"sip:h{n}.example" for n in range(10)))
    trunks = Trunks((many,), Random(1), 0.0)
    for gateway in trunks.gateways["t"].all:
        trunks.reached(many, gateway, [Target("UDP", f"192.0.2.{n}", 5060) for n in range(200)], 0.0)
        assert len(gateway.endpoints) == MAX_ENDPOINTS
    assert len(trunks.ways(TO)) == MAX_WAYS


def test_hops_for_people() -> None:
    assert [where(Target("", "2001:db8::1", 5060)), where(Target("", "x.example", 0))] == [
        "[2001:db8::1]:5060", "x.example",
    ]  # fmt: skip
