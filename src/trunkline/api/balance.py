"""Balance: what was paid in, less what was used. Source: spec `api.v2010.account.balance`.

A main account pays for its subaccounts' usage too; a subaccount shows its own credit and usage only.
"""

from datetime import date
from decimal import Decimal

from trunkline.api import respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.usage import day_of, usage_of

BEGINNING = date(1970, 1, 1)


async def fetch(request: Request, app: Services) -> Response:
    """GET Balance; up to a quarter of a minute old."""
    account = request.account
    usage = usage_of(app.archive, app.database, app.clock)
    accounts = await usage.family(account)
    today = day_of(app.clock.now_ms())
    totals = await usage.totals(accounts, BEGINNING, today, "all", account.price_unit)
    spent = sum((amounts["totalprice"].price for amounts in totals.values() if "totalprice" in amounts), Decimal(0))
    content = {
        "account_sid": account.sid,
        "balance": format(Decimal(account.credit or "0") - spent, "f"),
        "currency": account.price_unit,
    }
    return respond.resource(request.format, content, "Balance")


ROUTES = (Route("api", "GET", "/2010-04-01/Accounts/{AccountSid}/Balance", fetch),)
