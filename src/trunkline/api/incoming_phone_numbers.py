"""IncomingPhoneNumbers: buy from the operator's inventory, list, fetch, configure, move to another account, release.

A number that nobody has is a `PhoneNumber` record with an empty account. Buying sets the account under the record's
`rev`, so of two buyers one gets 21422. A number keeps its SID when it changes hands.
Source: spec `api.v2010.account.incoming_phone_number`; the error dictionary (21421, 21422, 21451, 21452, 21470-21474).
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.inventory import blank, leave_service
from trunkline.model import phone
from trunkline.model.account import Account
from trunkline.model.errors import ApiError
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, SIP_TRUNK, is_sid, new_sid
from trunkline.storage.database import Conflict

URLS = ("SmsUrl", "SmsFallbackUrl", "VoiceUrl", "VoiceFallbackUrl", "StatusCallback")
METHODS = ("SmsMethod", "SmsFallbackMethod", "VoiceMethod", "VoiceFallbackMethod", "StatusCallbackMethod")
APPLICATIONS = ("SmsApplicationSid", "VoiceApplicationSid")
SIDS = {"AddressSid": "AD", "IdentitySid": "RI", "BundleSid": "BU", "EmergencyAddressSid": "AD"}
"""References that are kept as they are given: the resources themselves are not here."""
CHOICES = {"VoiceReceiveMode": ("voice", "fax"), "EmergencyStatus": ("Active", "Inactive")}
AREA_CODE = re.compile(r"[2-9][0-9]{2}", re.ASCII)
AREA_CODE_COUNTRIES = ("US", "CA")
PURCHASE_TRIES = 20
"""Numbers of an area code that are tried when other buyers are faster."""
PATTERN = re.compile(r"\+?[0-9*]{1,20}", re.ASCII)
ORIGIN = "twilio"
"""Numbers of the platform itself, as against `hosted` ones."""


def display_name(number: PhoneNumber) -> str:
    """What a number is called unless its account says otherwise: North America's national format, else E.164."""
    plain = number.phone_number
    return phone.national_format(plain) if plain.startswith("+1") else plain


def render(number: PhoneNumber) -> dict[str, Any]:
    """The resource as the API shows it."""
    return {
        "account_sid": number.account_sid,
        "address_requirements": number.address_requirements,
        "address_sid": number.address_sid or None,
        "api_version": "2010-04-01",
        "beta": number.beta,
        "capabilities": {
            "voice": number.voice_enabled,
            "sms": number.sms_enabled,
            "mms": number.mms_enabled,
            "fax": number.fax_enabled,
        },
        "date_created": dates.rfc2822(number.bought_ms or number.created_ms),
        "date_updated": dates.rfc2822(number.updated_ms),
        "emergency_status": number.emergency_status,
        "emergency_address_sid": number.emergency_address_sid or None,
        "emergency_address_status": "unregistered",
        "friendly_name": number.friendly_name or display_name(number),
        "identity_sid": number.identity_sid or None,
        "origin": ORIGIN,
        "phone_number": number.phone_number,
        "sid": number.sid,
        "sms_application_sid": number.sms_application_sid,
        "sms_fallback_method": number.sms_fallback_method,
        "sms_fallback_url": number.sms_fallback_url,
        "sms_method": number.sms_method,
        "sms_url": number.sms_url,
        "status_callback": number.status_callback,
        "status_callback_method": number.status_callback_method,
        "trunk_sid": number.trunk_sid or None,
        "uri": f"/2010-04-01/Accounts/{number.account_sid}/IncomingPhoneNumbers/{number.sid}.json",
        "voice_application_sid": number.voice_application_sid,
        "voice_caller_id_lookup": number.voice_caller_id_lookup,
        "voice_fallback_method": number.voice_fallback_method,
        "voice_fallback_url": number.voice_fallback_url or None,
        "voice_method": number.voice_method,
        "voice_url": number.voice_url or None,
        "voice_receive_mode": number.voice_receive_mode,
        "status": "in-use",
        "bundle_sid": number.bundle_sid or None,
        "type": number.type,
    }


def _answer(request: Request, number: PhoneNumber, status: int = 200) -> Response:
    return respond.resource(request.format, render(number), "IncomingPhoneNumber", status)


# -- settings ----------------------------------------------------------------------------------------------------


def _settings(request: Request, app: Services) -> dict[str, Any]:
    """What the request sets, by field; raises the codes of the parameters that cannot be taken."""
    sent = records.webhooks(request, URLS, METHODS, ("VoiceCallerIdLookup",))
    name = records.friendly_name(request)
    if name is not None:
        sent["friendly_name"] = name
    for parameter in APPLICATIONS:
        sid = request.str(parameter, 64)
        if sid:
            application = app.directory.application(sid)
            if application is None or application.account_sid != request.account_sid:
                raise ApiError.of(21218)
        if sid is not None:
            sent[records.field_name(parameter)] = sid
    for parameter, prefix in SIDS.items():
        sid = request.str(parameter, 64)
        if sid and not is_sid(sid, prefix):
            raise ApiError.of(20423, value=sid)
        if sid is not None:
            sent[records.field_name(parameter)] = sid
    trunk_sid = request.str("TrunkSid", 64)
    if trunk_sid:
        _check_trunk(request, app, trunk_sid)
    if trunk_sid is not None:
        sent["trunk_sid"] = trunk_sid
    for parameter, choices in CHOICES.items():
        choice = request.enum(parameter, choices)
        if choice:
            sent[records.field_name(parameter)] = choice
    return sent


def _check_trunk(request: Request, app: Services, sid: str) -> None:
    """A number may be put on a trunk of its account. Raises 20423, 21245."""
    if not is_sid(sid, SIP_TRUNK):
        raise ApiError.of(20423, value=sid)
    trunk = app.directory.sip.trunk_of_sid(sid)
    if trunk is None or trunk.account_sid != request.account_sid:
        raise ApiError.of(21245, name="TrunkSid", reason="must be a trunk of the account")


def _new_owner(request: Request, app: Services) -> str:
    """The account that the number is to move to, empty when it stays. Raises 21470 to 21474."""
    sid = request.str("AccountSid", 64)
    if not sid or sid == request.account_sid:
        return ""
    if not is_sid(sid, "AC"):
        raise ApiError.of(21470)
    own = request.principal.account
    if own.owner_account_sid != own.sid:
        raise ApiError.of(21474)
    target: Account | None = app.directory.account(sid)
    if target is None:
        raise ApiError.of(21471)
    if target.owner_account_sid != own.sid:
        raise ApiError.of(21473)
    if target.status != "active":
        raise ApiError.of(21472)
    return sid


# -- buy ---------------------------------------------------------------------------------------------------------


async def _buy(request: Request, app: Services, type_: str) -> Response:
    """POST: PhoneNumber names one of the inventory, AreaCode leaves the choice to us."""
    wanted = request.str("PhoneNumber", 64)
    area_code = None if wanted or type_ else request.str("AreaCode", 16)
    if not wanted and not area_code:
        raise ApiError.missing("PhoneNumber")
    sent = _settings(request, app)
    if request.principal.is_test:
        return _test_answer(request, app, sent, wanted, area_code)
    if wanted:
        number = await _take(request, app, sent, await _inventory(app, wanted, type_))
        if number is None:
            raise ApiError.of(21422, number=wanted)
    else:
        number = await _take_in_area(request, app, sent, area_code or "")
    return _answer(request, number, 201)


async def _inventory(app: Services, wanted: str, type_: str) -> PhoneNumber:
    """The available number asked for; raises 21421, 21422, 21458."""
    e164 = phone.to_e164(wanted)
    if e164 is None:
        raise ApiError.of(21421, number=wanted)
    found = await app.database.find(PhoneNumber, {"phone_number": e164}, limit=1)
    if not found or found[0].account_sid:
        raise ApiError.of(21422, number=wanted)
    if type_ and found[0].type != type_:
        raise ApiError.of(21458)
    return found[0]


async def _take(request: Request, app: Services, sent: dict[str, Any], number: PhoneNumber) -> PhoneNumber | None:
    """Make it the account's; None when somebody else was faster."""
    number.friendly_name = display_name(number)
    records.assign(number, sent)
    number.account_sid = request.account_sid
    number.bought_ms = app.clock.now_ms()
    try:
        await app.database.update(number)
    except Conflict:
        return None
    return number


async def _take_in_area(request: Request, app: Services, sent: dict[str, Any], area_code: str) -> PhoneNumber:
    """Any available number of a North American area code; raises 21451, 21452."""
    if AREA_CODE.fullmatch(area_code) is None:
        raise ApiError.of(21451)
    where = {"account_sid": "", "country__in": AREA_CODE_COUNTRIES, "phone_number__prefix": "+1" + area_code}
    for number in await app.database.find(PhoneNumber, where, order="phone_number", limit=PURCHASE_TRIES):
        taken = await _take(request, app, sent, number)
        if taken is not None:
            return taken
    raise ApiError.of(21452, area_code=area_code)


def _test_answer(
    request: Request, app: Services, sent: dict[str, Any], wanted: str | None, area_code: str | None
) -> Response:
    """Test credentials: the magic numbers' errors, else a number that exists nowhere."""
    if wanted:
        wanted = phone.to_e164(wanted) or wanted
    phone.check_magic_purchase(wanted, area_code)
    now = app.clock.now_ms()
    number = PhoneNumber(
        sid=new_sid(PHONE_NUMBER, now), phone_number=wanted or phone.MAGIC_SENDER, country="US",
        created_ms=now, updated_ms=now, bought_ms=now,
    )  # fmt: skip
    records.assign(number, sent)
    number.account_sid = request.account_sid
    return _answer(request, number, 201)


# -- read --------------------------------------------------------------------------------------------------------


async def _list(request: Request, app: Services, type_: str) -> Response:
    asked = paging.read(request)
    where: dict[str, Any] = {"account_sid": request.account_sid}
    if type_:
        where["type"] = type_
    beta = request.bool("Beta")
    if beta is not None:
        where["beta"] = beta
    name = request.str("FriendlyName", records.MAX_FRIENDLY_NAME)
    if name:
        where["friendly_name"] = name
    found: records.Found[PhoneNumber] = [], None, None
    if (request.str("Origin", 20) or ORIGIN).lower() == ORIGIN:
        keep = _matches(request.str("PhoneNumber", 30) or "")
        found = await records.page(app.database, PhoneNumber, where, asked, PHONE_NUMBER, keep)
    items = [render(number) for number in found[0]]
    page = paging.Page("incoming_phone_numbers", "IncomingPhoneNumber", items, found[1], found[2])
    return paging.render(request, asked, page)


def _matches(text: str) -> Callable[[PhoneNumber], bool] | None:
    """The PhoneNumber filter: part of a number, `*` for any digit; a `+` pins it to the front."""
    compact = re.sub(r"[\s().-]", "", text)
    if not compact:
        return None
    if PATTERN.fullmatch(compact) is None:
        raise ApiError.invalid("PhoneNumber", "may hold digits, `*` and a leading `+`")
    pattern = re.compile(re.escape(compact).replace(r"\*", "[0-9]"), re.ASCII)
    if compact.startswith("+"):
        return lambda number: pattern.match(number.phone_number) is not None
    return lambda number: pattern.search(number.phone_number) is not None


async def fetch(request: Request, app: Services) -> Response:
    """GET IncomingPhoneNumbers/{Sid}."""
    return _answer(request, await records.find(request, app.database, PhoneNumber, PHONE_NUMBER))


# -- change ------------------------------------------------------------------------------------------------------


async def update(request: Request, app: Services) -> Response:
    """POST IncomingPhoneNumbers/{Sid}: configure it; AccountSid moves it between a parent and its subaccounts."""
    sent = _settings(request, app)
    owner = _new_owner(request, app)
    number = await records.find(request, app.database, PhoneNumber, PHONE_NUMBER)
    if owner:
        # What belongs to the old account does not move along.
        sent.update(account_sid=owner, sms_application_sid="", voice_application_sid="", trunk_sid="")
        await leave_service(app.database, number)
    return _answer(request, await records.change(request, app.database, number, lambda one: records.assign(one, sent)))


async def delete(request: Request, app: Services) -> Response:
    """DELETE IncomingPhoneNumbers/{Sid}: it is available to others at once."""
    number = await records.find(request, app.database, PhoneNumber, PHONE_NUMBER)
    await leave_service(app.database, number)
    await records.change(request, app.database, number, blank)
    return respond.no_content()


# -- routes ------------------------------------------------------------------------------------------------------

_LIST = "/2010-04-01/Accounts/{AccountSid}/IncomingPhoneNumbers"


def _typed(type_: str, path: str) -> tuple[Route, ...]:
    """Buying and listing at one path; an empty type: all types."""

    def buy(request: Request, app: Services) -> Awaitable[Response]:
        return _buy(request, app, type_)

    def list_(request: Request, app: Services) -> Awaitable[Response]:
        return _list(request, app, type_)

    return (
        Route("api", "POST", path, buy, test_credentials=True),
        Route("api", "GET", path, list_),
    )


ROUTES = (
    *_typed("", _LIST),
    *_typed("local", _LIST + "/Local"),
    *_typed("mobile", _LIST + "/Mobile"),
    *_typed("tollfree", _LIST + "/TollFree"),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
