"""Which way a call goes out, in which order, for how much."""

from collections import Counter
from decimal import Decimal
from random import Random

import pytest

from trunkline.model.call import Call, Direction
from trunkline.settings import Trunk
from trunkline.voice.trunks import Trunks, amount

TO = "+14155550199"


def trunks(*made):
    return Trunks(made, Random(7), 0.0)


def names(found):
    return [way.trunk.name for way in found]


def trunk(name, **changes):
    return Trunk(**({"name": name, "gateways": (f"sip:{name}.example",)} | changes))


def test_the_longest_prefix_goes_first_then_the_priority():
    found = trunks(
        trunk("all"), trunk("low", prefixes=("+1",), priority=1), trunk("high", prefixes=("1",), priority=2),
        trunk("long", prefixes=("+1415", "+1")), trunk("other", prefixes=("+49",)), trunk("in", prefixes=()),
    )  # fmt: skip
    assert names(found.ways(TO)) == ["long", "high", "low", "all"]
    assert found.reach(TO)
    assert not trunks(trunk("other", prefixes=("+49",))).reach(TO)
    assert not trunks(trunk("in", gateways=())).reach(TO)


def test_equal_trunks_share_by_weight():
    found = trunks(trunk("heavy", weight=3), trunk("light", weight=1))
    firsts = Counter(names(found.ways(TO))[0] for _ in range(4000))
    assert 0.70 < firsts["heavy"] / 4000 < 0.80
    assert sorted(names(found.ways(TO))) == ["heavy", "light"]


def test_gateways_follow_in_the_order_of_the_settings():
    found = trunks(trunk("two", gateways=("sip:10.0.0.1:5070;transport=tcp", "sip:[2001:db8::1]")))
    first, second = found.ways(TO)
    assert (str(first.uri), first.host, first.port, first.transport) == (
        f"sip:{TO}@10.0.0.1:5070;transport=tcp", "10.0.0.1", 5070, "TCP",
    )  # fmt: skip
    assert (str(second.uri), second.host, second.port, second.transport) == (
        f"sip:{TO}@[2001:db8::1]", "2001:db8::1", 5060, "",
    )  # fmt: skip


def test_a_sip_uri_needs_no_trunk():
    (way,) = trunks().ways("sip:bob@pbx.example:5080;transport=tcp")
    assert (way.host, way.port, way.transport, way.trunk) == ("pbx.example", 5080, "TCP", None)


@pytest.mark.parametrize(
    ("direction", "seconds", "price", "cost"),
    [
        (Direction.OUTBOUND_API, 0, "", ""),
        (Direction.OUTBOUND_API, 1, "0.013", "0.004"),
        (Direction.OUTBOUND_DIAL, 61, "0.026", "0.008"),
        (Direction.INBOUND, 60, "0.0085", ""),
    ],
)
def test_begun_minutes_are_paid(direction, seconds, price, cost):
    found = trunks(trunk("t", price=Decimal("0.013"), inbound_price=Decimal("0.0085"), cost=Decimal("0.004")))
    call = Call(sid="CA" + "0" * 32, account_sid="AC", direction=direction, trunk="t", answered_ms=1000)
    call.ended_ms = 1000 + seconds * 1000
    if not seconds:
        call.answered_ms = 0
    found.price(call)
    assert (call.price, call.cost) == (price, cost)
    assert call.price_unit == ("USD" if price else "")


def test_a_call_by_no_trunk_costs_nothing():
    call = Call(sid="CA" + "0" * 32, account_sid="AC", direction=Direction.OUTBOUND_API, answered_ms=1, ended_ms=9999)
    trunks(trunk("t", price=Decimal(1))).price(call)
    assert call.price == ""


def test_amounts_are_plain_decimals():
    assert [amount(Decimal(text), 10) for text in ("0.0085", "0", "10", "0.00000001")] == [
        "0.085", "0", "100", "0.0000001",
    ]  # fmt: skip
