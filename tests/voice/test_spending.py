"""Fraud limits: what is counted, what is refused, what outlives the process."""

import logging
from decimal import Decimal
from types import SimpleNamespace

import pytest

from tests.voice.world import ACCOUNT
from trunkline.model.call import Call, Direction
from trunkline.model.dialing import LOW, SPECIAL
from trunkline.settings import Trunk, Voice
from trunkline.storage.memory import InProcess
from trunkline.testing.clock import ManualClock
from trunkline.voice.spending import DAY, HIGH_RISK, HOUR, SPEND_DAY, SPEND_HOUR, Spending

OTHER = "AC" + "9" * 32
TRUNK = Trunk(name="carrier", price=Decimal("0.5"))


class Place:
    def __init__(self, memory=None, clock=None, **voice):
        self.clock = clock or ManualClock()
        self.memory = memory or InProcess(self.clock)
        self.alerts, self.live = [], {}
        alerts = SimpleNamespace(raise_=lambda account, code, **more: self.alerts.append((account, code)))
        settings = Voice(**{name: Decimal(value) if "spend" in name else value for name, value in voice.items()})
        self.spending = Spending(settings, self.memory, alerts, self.clock, self.live, {"carrier": TRUNK}.get)

    def call(self, price="1", account=ACCOUNT):
        self.spending.ended(Call(sid="CA1", account_sid=account, price=price, direction=Direction.OUTBOUND_DIAL))

    def up(self, sid, direction=Direction.OUTBOUND_DIAL, trunk="carrier", account=ACCOUNT, to="+14155550199"):
        ended = []
        record = SimpleNamespace(
            account_sid=account, trunk=trunk, direction=direction, answered_ms=self.clock.now_ms(), sid=sid, to=to
        )
        self.live[sid] = SimpleNamespace(record=record, is_up=True, hangup=lambda *why: ended.append(why))
        return ended

    def why(self, account=ACCOUNT, risk=LOW):
        denied = self.spending.denial(account, risk)
        return "" if denied is None else denied.why.rpartition(" ")[2]


def test_an_hours_limit(caplog) -> None:
    here = Place(spend_per_hour="3")
    here.call()
    here.call("1.5")
    assert here.why() == ""
    here.call("0.5")
    with caplog.at_level(logging.WARNING):
        assert [here.why() for _ in range(3)] == [SPEND_HOUR] * 3
    assert here.why(OTHER) == ""
    denied = here.spending.denial(ACCOUNT, LOW)
    assert denied is not None
    assert (denied.api, denied.dial) == (21216, 13225)
    assert here.alerts == [(ACCOUNT, 13225)]  # once
    assert len(caplog.records) == 1
    assert here.spending.counters == {SPEND_HOUR: 4}
    here.clock.advance(3600 + 300)
    assert here.why() == ""


def test_a_days_limit() -> None:
    here = Place(spend_per_day="3")
    for _ in range(3):
        here.call()
        here.clock.advance(4 * 3600)
    assert here.why() == SPEND_DAY
    assert here.spending.spent(ACCOUNT, HOUR) == 0
    assert here.spending.spent(ACCOUNT, DAY) == 3
    here.clock.advance(13 * 3600)
    assert here.why() == ""


def test_calls_that_are_up_count_by_begun_minutes() -> None:
    here = Place(spend_per_hour="2")
    here.up("CA1")
    here.up("CA2", Direction.INBOUND)
    here.up("CA3", trunk="")
    here.up("CA4", account=OTHER)
    assert here.why() == ""
    here.clock.advance(180)
    assert here.why() == SPEND_HOUR  # 4 begun minutes at 0.5
    assert here.alerts == [(ACCOUNT, 13225)]


def test_what_is_over_the_limit_is_cut_where_that_is_wanted() -> None:
    here = Place(spend_per_hour="1", cut_on_limit=True)
    mine, received, theirs = here.up("CA1"), here.up("CA2", Direction.INBOUND), here.up("CA3", account=OTHER)
    here.spending.cut()
    assert mine == []
    for_help = here.up("CA4", to="911")
    here.call("0.6")
    here.spending.cut()
    assert mine == [("spend-limit", 503)]
    assert received == theirs == for_help == []


def test_calls_to_high_risk_numbers_in_an_hour() -> None:
    here = Place(high_risk_calls_per_hour=2)
    for risk in (SPECIAL, LOW, SPECIAL):
        assert here.why(risk=risk) == ""
        here.spending.placed(ACCOUNT, risk)
    assert here.why(risk=SPECIAL) == HIGH_RISK
    assert here.why(risk=LOW) == ""
    assert here.why(OTHER, SPECIAL) == ""
    here.clock.advance(3601)
    assert here.why(risk=SPECIAL) == ""


async def test_what_was_spent_outlives_the_process() -> None:
    here = Place(spend_per_hour="3")
    here.call("3")
    heir = Place(here.memory, here.clock, spend_per_hour="3")
    assert heir.why() == ""
    await heir.spending.load()
    assert heir.why() == SPEND_HOUR


@pytest.mark.parametrize("price", ["", "0", "many"])
async def test_what_costs_nothing_is_not_kept(price) -> None:
    here = Place(spend_per_hour="3")
    here.call(price)
    assert await here.memory.scan("spend/") == []


async def test_nothing_is_kept_without_a_limit() -> None:
    here = Place()
    here.call()
    here.spending.placed(ACCOUNT, SPECIAL)
    assert not here.spending.limited
    assert here.why(risk=SPECIAL) == ""
    assert await here.memory.scan("spend/") == []
    here.memory.post("spend/x", b"\xc1")
    await here.spending.load()
    assert await here.memory.scan("spend/") == []
