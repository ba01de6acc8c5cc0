"""SIP credentials: the users of a credential list. Source: spec
`api.v2010.account.sip.sip_credential_list.sip_credential`; the error dictionary (21242, 21243).

The password is turned into digests for the realm `sip.realm` and forgotten; no answer ever shows it.
"""

import re
from typing import Any

from trunkline.api import dates, records, sip_credential_lists
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.services import Services
from trunkline.api.sip_entries import EntryKind, routes
from trunkline.api.sip_lists import uri
from trunkline.model.errors import ApiError
from trunkline.model.sid import SIP_CREDENTIAL, new_sid
from trunkline.model.sip_domain import SipCredential
from trunkline.sip.digest import ha1
from trunkline.storage.database import Duplicate

MAX_CREDENTIALS = 1000
"""Credentials of a list (21242)."""
MAX_USERNAME = 32
"""Characters of a Username."""
MIN_PASSWORD = 12
MAX_PASSWORD = 256
"""Characters of a Password; the longest is ours."""
INVALID = 21243
TOO_MANY = 21242
USERNAME = re.compile(r"[A-Za-z0-9_.!~*'()&=+$,;?/-]+", re.ASCII)
"""RFC 3261's `user` without escapes: no colon, which would make the digest ambiguous, and no `@`."""


def render(credential: SipCredential) -> dict[str, Any]:
    """The resource as the API shows it: without the password."""
    list_sid = credential.credential_list_sid
    return {
        "sid": credential.sid,
        "account_sid": credential.account_sid,
        "credential_list_sid": list_sid,
        "username": credential.username,
        "date_created": dates.rfc2822(credential.created_ms),
        "date_updated": dates.rfc2822(credential.updated_ms),
        "uri": uri(credential.account_sid, "CredentialLists", list_sid, "Credentials", credential.sid),
    }


def digests(username: str, realm: str, password: str) -> dict[str, Any]:
    """What is kept of a password, by the record's fields."""
    return {
        "realm": realm,
        "ha1_md5": ha1("MD5", username, realm, password),
        "ha1_sha256": ha1("SHA-256", username, realm, password),
    }


def _username(request: Request) -> str:
    name = request.str("Username", MAX_USERNAME, code=INVALID)
    if not name:
        raise ApiError.missing("Username")
    if USERNAME.fullmatch(name) is None:
        raise ApiError.of(INVALID, name="Username", reason="may hold letters, digits and _.!~*'()&=+$,;?/- only")
    return name


def check_password(password: str) -> str:
    """At least 12 characters with a digit, an upper-case and a lower-case letter (spec); raises 21243."""
    if (
        len(password) < MIN_PASSWORD
        or not any(c.isdigit() for c in password)
        or not any(c.isupper() for c in password)
        or not any(c.islower() for c in password)
    ):
        reason = f"must have at least {MIN_PASSWORD} characters, one digit, and mixed case"
        raise ApiError.of(INVALID, name="Password", reason=reason)
    if not password.isprintable():
        raise ApiError.of(INVALID, name="Password", reason="must not contain control characters")
    return password


def _password(request: Request) -> str | None:
    password = request.str("Password", MAX_PASSWORD, code=INVALID)
    return check_password(password) if password else None


KIND = EntryKind(
    within=sip_credential_lists.KIND,
    record=SipCredential,
    prefix=SIP_CREDENTIAL,
    key="credentials",
    element="Credential",
    render=render,
)


async def create(request: Request, app: Services) -> Response:
    """POST Credentials: Username, Password."""
    parent = await KIND.parent(request, app)
    username, password = _username(request), _password(request)
    if password is None:
        raise ApiError.missing("Password")
    within = {"credential_list_sid": parent.sid}
    await records.at_most(app.database, SipCredential, within, MAX_CREDENTIALS, TOO_MANY)
    credential = SipCredential(
        sid=new_sid(SIP_CREDENTIAL, app.clock.now_ms()),
        account_sid=request.account_sid,
        credential_list_sid=parent.sid,
        username=username,
        **digests(username, app.settings.sip.realm, password),
    )
    try:
        await app.database.insert(credential)
    except Duplicate:
        raise ApiError.of(INVALID, name="Username", reason="is in this list already") from None
    return KIND.answer(request, credential, 201)


async def update(request: Request, app: Services) -> Response:
    """POST Credentials/{Sid}: a new Password; the old one is worth nothing once this is answered."""
    password = _password(request)
    credential = await KIND.find(request, app)
    if password is not None:
        kept = digests(credential.username, app.settings.sip.realm, password)
        credential = await records.change(request, app.database, credential, lambda one: records.assign(one, kept))
    return KIND.answer(request, credential)


ROUTES = routes(KIND, create, update)
