"""Accounts: the caller's own and its subaccounts; fetch, list, create a subaccount, update.

Source: spec `api.v2010.account`; status rules from the error dictionary (21475 to 21480).
"""

from datetime import UTC, datetime
from typing import Any

from trunkline.accounts.directory import create_account
from trunkline.accounts.sip_removal import remove_sip
from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.inventory import release_all
from trunkline.model.account import Account
from trunkline.model.errors import ApiError
from trunkline.model.sid import ACCOUNT

STATUSES = ("active", "suspended", "closed")
MAX_SUBACCOUNTS = 1000
"""Subaccounts of a main account (21480)."""

SUBRESOURCES = {
    "available_phone_numbers": "AvailablePhoneNumbers",
    "calls": "Calls",
    "conferences": "Conferences",
    "incoming_phone_numbers": "IncomingPhoneNumbers",
    "notifications": "Notifications",
    "outgoing_caller_ids": "OutgoingCallerIds",
    "recordings": "Recordings",
    "transcriptions": "Transcriptions",
    "addresses": "Addresses",
    "signing_keys": "SigningKeys",
    "connect_apps": "ConnectApps",
    "sip": "SIP",
    "authorized_connect_apps": "AuthorizedConnectApps",
    "usage": "Usage",
    "keys": "Keys",
    "applications": "Applications",
    "short_codes": "SMS/ShortCodes",
    "queues": "Queues",
    "messages": "Messages",
    "balance": "Balance",
}
"""Links of an account: key -> path below it."""


def render(account: Account) -> dict[str, Any]:
    """The resource as the API shows it, auth token included."""
    base = f"/2010-04-01/Accounts/{account.sid}"
    return {
        "auth_token": account.auth_token,
        "date_created": dates.rfc2822(account.created_ms),
        "date_updated": dates.rfc2822(account.updated_ms),
        "friendly_name": account.friendly_name,
        "owner_account_sid": account.owner_account_sid,
        "sid": account.sid,
        "status": account.status,
        "subresource_uris": {name: f"{base}/{path}.json" for name, path in SUBRESOURCES.items()},
        "type": account.type,
        "uri": base + ".json",
    }


async def fetch(request: Request, app: Services) -> Response:
    """GET Accounts/{Sid}."""
    return respond.resource(request.format, render(request.account), "Account")


async def list_(request: Request, app: Services) -> Response:
    """GET Accounts: the caller's own account and its subaccounts, newest first."""
    asked = paging.read(request)
    own = request.principal.account
    where: dict[str, Any] = {"owner_account_sid": own.sid} if _is_main(own) else {"sid": own.sid}
    name = request.str("FriendlyName", records.MAX_FRIENDLY_NAME)
    if name:
        where["friendly_name"] = name
    status = request.enum("Status", STATUSES)
    if status:
        where["status"] = status
    found, following, previous = await records.page(app.database, Account, where, asked, ACCOUNT)
    items = [render(account) for account in found]
    return paging.render(request, asked, paging.Page("accounts", "Account", items, following, previous))


async def create(request: Request, app: Services) -> Response:
    """POST Accounts: a subaccount of the caller's account. A subaccount cannot have any (20003)."""
    own = request.principal.account
    if not _is_main(own):
        raise ApiError.forbidden()
    name = records.friendly_name(request)
    if not name:
        now = datetime.fromtimestamp(app.clock.now_ms() / 1000, UTC)
        name = f"SubAccount Created at {now:%Y-%m-%d} {now.hour % 12 or 12:02d}:{now:%M} {'ap'[now.hour // 12]}m"
    if await app.database.count(Account, {"owner_account_sid": own.sid}) > MAX_SUBACCOUNTS:
        raise ApiError.of(21480)
    if await app.database.count(Account) >= app.settings.limits.accounts:
        raise ApiError.of(21480)
    account = await create_account(app.database, app.clock, name, own)
    return respond.resource(request.format, render(account), "Account", 201)


async def update(request: Request, app: Services) -> Response:
    """POST Accounts/{Sid}: rename it; suspend, reactivate or close a subaccount. Closing is final, gives its numbers
    back, and removes its SIP domains and trunks; repeating it finishes what was interrupted."""
    name = records.friendly_name(request)
    status = request.enum("Status", STATUSES, code=21475)
    if status:
        _may_set_status(request)

    def apply(account: Account) -> None:
        if name:
            account.friendly_name = name
        if status and status != account.status:
            if account.status == "closed":
                raise ApiError.of(21479)
            account.status = status

    account = await app.database.get(Account, request.account.sid)
    if account is None:
        raise ApiError.not_found(request.path)
    account = await records.change(request, app.database, account, apply)
    if status == "closed":
        await release_all(app.database, account.sid)
        await remove_sip(app.database, account.sid)
    return respond.resource(request.format, render(account), "Account")


def _is_main(account: Account) -> bool:
    return account.owner_account_sid == account.sid


def _may_set_status(request: Request) -> None:
    """Only a parent sets the status of a subaccount; nobody that of a main account (21477)."""
    if _is_main(request.account):
        raise ApiError.of(21477)
    if request.principal.account.sid != request.account.owner_account_sid:
        raise ApiError.forbidden()


_LIST = "/2010-04-01/Accounts"
ROUTES = (
    Route("api", "GET", _LIST, list_),
    Route("api", "POST", _LIST, create),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
)
