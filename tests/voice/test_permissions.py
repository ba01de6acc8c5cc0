"""Whom an account may call: countries, high-risk numbers, emergency numbers, hosts of trunks."""

from types import SimpleNamespace

import pytest

from tests.voice.world import ACCOUNT, World, world
from trunkline.model.dialing import DialingPermissions
from trunkline.settings import Trunk, Voice
from trunkline.voice.number_risks import load
from trunkline.voice.permissions import Permissions, gateway_hosts, is_emergency

US, LATVIA, PREMIUM, SATELLITE = "+14155550123", "+37167123456", "+37190000000", "+881612345678"


def made(own: dict[str, str] | None = None, trunks: tuple[Trunk, ...] = (), **voice) -> Permissions:
    mine = None if own is None else DialingPermissions(sid="DP", account_sid=ACCOUNT, countries=own)
    directory = SimpleNamespace(dialing_permissions=lambda sid: mine if sid == ACCOUNT else None)
    return Permissions(Voice(**voice), directory, load(), trunks)


def codes(permissions: Permissions, *numbers: str) -> list[int]:
    found = [permissions.denial(ACCOUNT, number) for number in numbers]
    return [0 if denied is None else denied.api for denied in found]


def test_by_default_low_risk_numbers_everywhere() -> None:
    assert codes(made(), US, LATVIA, PREMIUM, SATELLITE, "+19005550123", "+5351234567") == [
        0, 0, 21215, 21215, 21215, 21215,
    ]  # fmt: skip


def test_an_account_permits_itself_more_and_less() -> None:
    permissions = made({"LV": "LS", "US": "", "CU": "T"})
    assert codes(permissions, LATVIA, PREMIUM, US, "+16135550123", "+5351234567", "+493012345678") == [
        0, 0, 21215, 21215, 0, 0,
    ]  # fmt: skip
    assert made({"LV": "S"}).permitted(ACCOUNT, "LV") == "S"


def test_the_operator_has_the_last_word() -> None:
    permissions = made({"LV": "LST", "DE": "LST"}, countries=("US", "LV"), high_risk=False)
    assert codes(permissions, US, "+16135550123", LATVIA, PREMIUM, "+493012345678", "+80012345678") == [
        0, 0, 0, 21215, 21215, 21215,
    ]  # fmt: skip


def test_a_denial_has_the_codes_of_all_ways() -> None:
    denied = made().denial(ACCOUNT, PREMIUM)
    assert denied is not None
    assert (denied.api, denied.dial, denied.trunk) == (21215, 13227, 32205)
    assert PREMIUM in denied.why


@pytest.mark.parametrize(
    ("number", "emergency"),
    [("+1911", True), ("+44999", True), ("+49112", True), ("+358112", True), ("+61000", True), ("+14155550123", False),
     ("+4930123", False), ("+1", False), ("+", False)],
)  # fmt: skip
def test_emergency_numbers(number: str, emergency: bool) -> None:
    assert is_emergency(number) is emergency
    if emergency:
        assert codes(made({"US": "LST", "FI": "LST"}), number) == [21216]


GATEWAYS = (
    Trunk(name="carrier", gateways=("sip:Carrier.example", "sip:192.0.2.9:5070", "sip:[2001:db8::9]")),
    Trunk(name="here", gateways=("sip:127.0.0.1:5070", "sip:localhost")),
    Trunk(name="phones", gateways=("sip:192.0.2.77",), simulated=True),
)


def test_carriers_cannot_be_called_past_the_permissions() -> None:
    assert gateway_hosts(GATEWAYS) == {"carrier.example", "192.0.2.9", "2001:db8::9"}
    permissions = made(trunks=GATEWAYS)
    assert codes(
        permissions, "sip:+19005550123@carrier.example", "sip:x@CARRIER.EXAMPLE:5080;transport=tcp", "sips:1@192.0.2.9",
        "sip:alice@example.com", "sip:1@127.0.0.1:5070", "sip:1@192.0.2.77", "sip:", "client:alice",
    ) == [21216, 21216, 21216, 0, 0, 0, 0, 0]  # fmt: skip
    assert codes(made(trunks=GATEWAYS, sip_to_trunks=True), "sip:+19005550123@carrier.example") == [0]


async def test_a_dial_is_refused_with_a_warning(tmp_path) -> None:
    async with world(tmp_path) as here:
        denied(here, made())
        await here.whole(f"<Dial>{PREMIUM}</Dial><Say>sorry</Say>")
        assert here.alerts.codes == [13227]
        assert ["sorry"] in here.media.plays()


def denied(here: World, permissions: Permissions) -> None:
    """The world's `<Dial>` asks these."""
    here.services.outbound = SimpleNamespace(
        denial=permissions.denial, leads_to=lambda to: True, bridged={}, emergency=lambda text, caller: "",
    )  # fmt: skip
