"""Alerts are kept, bounded and swept."""

import asyncio

import pytest

from trunkline.accounts import alerts as alerts_module
from trunkline.accounts.alerts import BURST, MAX_BODY_CHARS, REFILL_S, RETENTION_MS, Alerts
from trunkline.model.errors import describe
from trunkline.model.numbers import Alert
from trunkline.model.sid import is_sid

AC, OTHER = "AC" + "a" * 32, "AC" + "b" * 32


@pytest.fixture
async def alerts(database, clock):
    alerts = Alerts(database, clock)
    yield alerts
    await alerts.close()


async def kept(database, alerts):
    await alerts.close()
    return await database.find(Alert)


async def test_an_alert_says_what_happened(database, clock, alerts):
    sid = alerts.raise_(
        AC, 11200, resource_sid="SM1", request_method="POST", request_url="https://x/", response_body="oops",
        request_headers="a=b", response_headers="c=d", request_variables="From=%2B1",
    )  # fmt: skip
    assert is_sid(sid, "NO")
    (alert,) = await kept(database, alerts)
    assert (alert.sid, alert.account_sid, alert.error_code, alert.resource_sid) == (sid, AC, "11200", "SM1")
    assert alert.log_level == describe(11200).log_level
    assert alert.alert_text == describe(11200).message
    assert (alert.request_method, alert.request_url, alert.request_variables) == ("POST", "https://x/", "From=%2B1")
    assert (alert.request_headers, alert.response_headers, alert.response_body) == ("a=b", "c=d", "oops")
    assert alert.created_ms == clock.now_ms()


async def test_an_own_text_and_an_unknown_code(database, alerts):
    alerts.raise_(AC, 99_999_999, text="the queue is full")
    (alert,) = await kept(database, alerts)
    assert (alert.error_code, alert.alert_text) == ("99999999", "the queue is full")


async def test_bodies_are_cut(database, alerts):
    alerts.raise_(AC, 11200, response_body="x" * 1_000_000, request_url="u" * 1_000_000, text="t" * 1_000_000)
    (alert,) = await kept(database, alerts)
    assert len(alert.response_body) == MAX_BODY_CHARS
    assert sum(len(str(getattr(alert, name))) for name in alert.__struct_fields__) < 16_000


async def test_a_storm_is_bounded_per_account_and_summed_up_once(database, alerts):
    for i in range(1000):
        alerts.raise_(AC, 11200 if i % 10 else 12100)
    assert alerts.raise_(AC, 11200) == ""
    assert alerts.raise_(OTHER, 11200) != ""
    found = await kept(database, alerts)
    mine = [alert for alert in found if alert.account_sid == AC]
    assert len(mine) == BURST + 1
    (summary,) = [alert for alert in mine if alert.error_code == "20429"]
    assert "901 more alerts" in summary.alert_text
    assert "11200 (811), 12100 (90)" in summary.alert_text
    assert alerts.dropped == 901


async def test_the_budget_refills(clock, alerts):
    for _ in range(BURST + 1):
        last = alerts.raise_(AC, 11200)
    assert last == ""
    clock.ms += int(REFILL_S * 1000)
    assert alerts.raise_(AC, 11200) != ""
    assert alerts.raise_(AC, 11200) == ""


async def test_the_summary_comes_by_itself(database, alerts, monkeypatch):
    monkeypatch.setattr(alerts_module, "SUMMARY_S", 0.0)
    heard, seen = asyncio.Event(), set()

    def changed(sids):
        seen.update(sids)
        if len(seen) > BURST:
            heard.set()

    database.watch(Alert, changed)
    for _ in range(BURST + 5):
        alerts.raise_(AC, 11200)
    async with asyncio.timeout(60):
        await heard.wait()
    assert await database.count(Alert, {"error_code": "20429"}) == 1


async def test_a_slow_disk_does_not_fill_the_memory(alerts, monkeypatch):
    monkeypatch.setattr(alerts_module, "MAX_WRITES", 3)
    assert [alerts.raise_(f"AC{i:032}", 11200) != "" for i in range(5)] == [True, True, True, False, False]


async def test_a_store_that_fails_does_not_fail_the_caller(database, alerts, caplog):
    await database.close()
    assert alerts.raise_(AC, 11200) != ""
    await alerts.close()
    assert alerts.raised == 0
    assert "not kept" in caplog.text


async def test_old_alerts_are_swept(database, clock, alerts):
    alerts.raise_(AC, 11200)
    await alerts.close()
    clock.ms += RETENTION_MS
    alerts.raise_(AC, 11200)
    await alerts.close()
    assert await alerts.sweep() == 0
    clock.ms += 1
    assert await alerts.sweep() == 1
    assert await database.count(Alert) == 1
