"""Monitor alerts, and notifications, with every SDK: a status callback that cannot be delivered raises one."""

import time

from tests.conformance.sdk import Record, Sdk
from tests.conformance.site import Site, Tenant

WAIT_S = 60.0


def alerts(sdk: Sdk, **filters: object) -> list[Record]:
    """The account's alerts, once there are some."""
    until = time.monotonic() + WAIT_S
    while not (found := sdk.monitor.v1.alerts.list(**filters)):
        assert time.monotonic() < until, "no alert was raised"
        time.sleep(0.05)
    return list(found)


def test_alerts(sdk: Sdk, tenant: Tenant, site: Site) -> None:
    url = f"{site.files_url}/gone"
    made = sdk.messages.create(to="+12125550140", from_=tenant.numbers[0], body="x", status_callback=url)
    alert = alerts(sdk)[0]
    assert (alert.resource_sid, alert.account_sid, alert.request_url) == (made.sid, tenant.sid, url)
    assert alert.error_code == "15003"
    assert alert.more_info.endswith("/15003")
    whole = sdk.monitor.v1.alerts(alert.sid).fetch()
    assert whole.request_method == "POST"
    assert "response_body" in whole
    assert sdk.monitor.v1.alerts.list(log_level="debug") == []
    assert {one.log_level for one in alerts(sdk, log_level=alert.log_level)} == {alert.log_level}
    assert all(len(page) == 1 for page in sdk.monitor.v1.alerts.pages(page_size=1))


def test_notifications(sdk: Sdk, tenant: Tenant, site: Site) -> None:
    url = f"{site.files_url}/gone"
    sdk.messages.create(to="+12125550141", from_=tenant.numbers[0], body="x", status_callback=url)
    alert = alerts(sdk)[0]
    found = sdk.notifications.list()
    assert alert.sid in [one.sid for one in found]
    whole = sdk.notifications(alert.sid).fetch()
    assert (whole.error_code, whole.request_url) == ("15003", url)
