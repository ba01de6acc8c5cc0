"""Which route a message takes, and what it costs."""

from collections import Counter
from decimal import Decimal

import pytest

from trunkline.messaging.routing import Router, amount
from trunkline.model.sid import new_sid
from trunkline.settings import Rate, Route

AC = "AC" + "a" * 32


def names(router, to="+14155550100", sender="+12025550100", account=AC, key="0" * 32):
    return [route.name for route in router.candidates(account, sender, to, key)]


def test_single_connector_needs_no_route():
    assert names(Router((), (), ["only"])) == ["default"]
    assert names(Router((), (), ["a", "b"])) == []


def test_longest_prefix_wins_then_priority():
    router = Router(
        (
            Route(name="all", connector="c"),
            Route(name="na", connector="c", prefixes=("+1",)),
            Route(name="sf", connector="c", prefixes=("1415",)),
            Route(name="sf-first", connector="c", prefixes=("1415",), priority=5),
        ),
        (),
        ["c"],
    )
    assert names(router) == ["sf-first", "sf", "na", "all"]
    assert names(router, to="+4930123456") == ["all"]


@pytest.mark.parametrize(
    ("sender", "account", "expected"),
    [
        ("+12025550100", AC, ["by-account", "by-sender"]),
        ("+12025550199", AC, ["by-account", "by-sender"]),
        ("+13035550100", AC, ["by-account"]),
        ("BRAND", "AC" + "b" * 32, ["by-name"]),
        ("OTHER", "AC" + "b" * 32, []),
    ],
)
def test_sender_and_account_restrict_a_route(sender, account, expected):
    router = Router(
        (
            Route(name="by-account", connector="c", accounts=(AC,), priority=1),
            Route(name="by-sender", connector="c", senders=("+1202*",)),
            Route(name="by-name", connector="c", senders=("BRAND",)),
        ),
        (),
        ["c"],
    )
    assert names(router, sender=sender, account=account) == expected


def test_routes_of_unknown_connectors_are_left_out():
    assert names(Router((Route(name="gone", connector="x"), Route(name="here", connector="c")), (), ["c"])) == ["here"]


def test_weights_share_and_the_same_message_always_goes_the_same_way():
    router = Router(
        (Route(name="three", connector="c", weight=3), Route(name="one", connector="c", weight=1)), (), ["c"]
    )
    keys = [new_sid("SM") for _ in range(4000)]
    drawn = Counter(names(router, key=key)[0] for key in keys)
    assert 0.70 < drawn["three"] / 4000 < 0.80
    assert all(names(router, key=key) == names(router, key=key) for key in keys[:50])
    assert all(sorted(names(router, key=key)) == ["one", "three"] for key in keys[:50])


def test_price_by_longest_prefix():
    router = Router(
        (),
        (
            Rate(prefix="", price=Decimal("0.05")),
            Rate(prefix="+1", price=Decimal("0.0079"), inbound_price=Decimal("0.001")),
            Rate(prefix="49", price=Decimal("0.07"), currency="EUR"),
        ),
        ["c"],
    )
    assert router.price("+14155550100") == (Decimal("0.0079"), "USD")
    assert router.price("+14155550100", inbound=True) == (Decimal("0.001"), "USD")
    assert router.price("+4930123456") == (Decimal("0.07"), "EUR")
    assert router.price("+33123456789") == (Decimal("0.05"), "USD")
    assert Router((), (), ["c"]).price("+1") is None
    assert amount(Decimal("0.0079"), 3) == "0.02370"
