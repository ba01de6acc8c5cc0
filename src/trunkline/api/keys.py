"""API keys: create (the secret is shown this once), list, fetch, rename, delete.

Keys made over the API are standard keys: they may not use /Accounts and /Keys. Main keys come from the command line.
Source: spec `api.v2010.account.key`, `new_key`.
"""

from typing import Any

from trunkline.accounts.directory import create_api_key
from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.account import ApiKey
from trunkline.model.sid import API_KEY

MAX_KEYS = 1000
"""API keys of an account."""


def render(key: ApiKey) -> dict[str, Any]:
    """The resource as the API shows it."""
    return {
        "sid": key.sid,
        "friendly_name": key.friendly_name,
        "date_created": dates.rfc2822(key.created_ms),
        "date_updated": dates.rfc2822(key.updated_ms),
    }


def routes(collection: str, list_key: str, element: str) -> tuple[Route, ...]:
    """The same keys under one of their two names (`Keys`, and the older `SigningKeys`)."""

    async def create(request: Request, app: Services) -> Response:
        """POST: 201 with the secret."""
        name = records.friendly_name(request) or ""
        owner = {"account_sid": request.account_sid}
        await records.make_room(app.database, ApiKey, owner, MAX_KEYS, "API keys")
        key, secret = await create_api_key(app.database, app.clock, app.secrets, request.account_sid, name)
        return respond.resource(request.format, {**render(key), "secret": secret}, element, 201)

    async def list_(request: Request, app: Services) -> Response:
        """GET: newest first."""
        asked = paging.read(request)
        where = {"account_sid": request.account_sid}
        found, following, previous = await records.page(app.database, ApiKey, where, asked, API_KEY)
        items = [render(key) for key in found]
        return paging.render(request, asked, paging.Page(list_key, element, items, following, previous))

    async def fetch(request: Request, app: Services) -> Response:
        """GET {Sid}."""
        key = await records.find(request, app.database, ApiKey, API_KEY)
        return respond.resource(request.format, render(key), element)

    async def update(request: Request, app: Services) -> Response:
        """POST {Sid}: FriendlyName."""
        name = records.friendly_name(request)
        key = await records.find(request, app.database, ApiKey, API_KEY)
        if name is not None:
            sent = {"friendly_name": name}
            key = await records.change(request, app.database, key, lambda one: records.assign(one, sent))
        return respond.resource(request.format, render(key), element)

    async def delete(request: Request, app: Services) -> Response:
        """DELETE {Sid}: the key counts no longer once this is answered."""
        await app.database.delete(await records.find(request, app.database, ApiKey, API_KEY))
        return respond.no_content()

    path = "/2010-04-01/Accounts/{AccountSid}/" + collection
    return (
        Route("api", "POST", path, create),
        Route("api", "GET", path, list_),
        Route("api", "GET", path + "/{Sid}", fetch),
        Route("api", "POST", path + "/{Sid}", update),
        Route("api", "DELETE", path + "/{Sid}", delete),
    )


ROUTES = routes("Keys", "keys", "Key")
