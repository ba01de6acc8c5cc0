"""Whom an account may call: countries, high-risk numbers, emergency numbers, our own trunks; and its fraud limits.

Checked for each call that leaves, whoever starts it (the API, `<Dial>`, a customer's trunk), before anything is sent.
Where nothing is configured it costs two look-ups in dictionaries. Source: Twilio's dialing permissions (voice v1).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from trunkline.model import phone
from trunkline.model.dialing import LOW, SPECIAL, TOLL_FRAUD, country_of
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.uri import SIP_SCHEMES, Uri
from trunkline.voice.denials import Denial, blocked, not_permitted
from trunkline.voice.number_risks import Risks

if TYPE_CHECKING:
    from trunkline.accounts.directory import Directory
    from trunkline.settings import Trunk, Voice
    from trunkline.voice.spending import Spending

EVERYTHING: Final = LOW + SPECIAL + TOLL_FRAUD
MAX_EMERGENCY: Final = 9
"""Characters of an E.164 text that may be an emergency number behind a calling code."""


class Permissions:
    """See the module. `spending` are the fraud limits, if there are any."""

    def __init__(
        self,
        voice: Voice,
        directory: Directory,
        risks: Risks,
        trunks: Iterable[Trunk] = (),
        spending: Spending | None = None,
    ) -> None:
        self._directory = directory
        self.risks = risks
        self.spending = spending
        self._ceiling = frozenset(country_of(one.upper()) for one in voice.countries)
        self._high_risk = voice.high_risk
        self._hosts = frozenset() if voice.sip_to_trunks else gateway_hosts(trunks)

    def denial(self, account_sid: str, to: str) -> Denial | None:
        """Why an account may not call an address (E.164 or a `sip:` URI) now; None: it may."""
        if not to.startswith("+"):
            return self._of_uri(to) if to.partition(":")[0].lower() in SIP_SCHEMES else None
        risk = self.risks.of(to)
        mine = self._directory.dialing_permissions(account_sid)
        if risk != LOW or mine is not None or self._ceiling or len(to) <= MAX_EMERGENCY:
            denied = self._of_number(account_sid, to, risk)
            if denied is not None:
                return denied
        return self.spending.denial(account_sid, risk) if self.spending is not None else None

    def _of_number(self, account_sid: str, to: str, risk: str) -> Denial | None:
        if len(to) <= MAX_EMERGENCY and is_emergency(to):
            return blocked(
                f"{to} is an emergency number: such calls need voice.emergency_trunk and a caller from there"
            )
        region = phone.country(to)
        if risk in self.permitted(account_sid, country_of(region) if region else ""):
            return None
        return not_permitted(f"{_KINDS[risk]} of {region or 'no country'} are not permitted: {to}")

    def permitted(self, account_sid: str, country: str) -> str:
        """The letters of what an account may call in a country (empty: numbers of no country)."""
        mine = self._directory.dialing_permissions(account_sid)
        letters = mine.countries.get(country, LOW) if mine is not None else LOW
        if self._ceiling and country not in self._ceiling:
            return ""
        return letters if self._high_risk else letters.replace(SPECIAL, "").replace(TOLL_FRAUD, "")

    def _of_uri(self, to: str) -> Denial | None:
        """The carriers believe our address: who could name their hosts would call past all of this, for nothing."""
        if not self._hosts:
            return None
        try:
            host = Uri.parse(to).bare_host.lower()
        except MalformedMessage:
            return None
        if not self.is_trunk(host):
            return None
        return blocked(f"{host} is the gateway of a trunk: numbers are dialled, not its URI")

    def is_trunk(self, host: str) -> bool:
        """Whether a host is a gateway that customers may not name."""
        return host in self._hosts


_KINDS: Final = {LOW: "low-risk numbers", SPECIAL: "special services", TOLL_FRAUD: "numbers favoured by toll fraud"}


def is_emergency(number: str) -> bool:
    """Whether an E.164 text is an emergency number behind a calling code, which some carriers take for one."""
    import phonenumbers

    for width in (1, 2, 3):
        code = number[1 : 1 + width]
        regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(code), ()) if code.isdecimal() else ()
        rest = number[1 + width :]
        if rest and any(phonenumbers.is_emergency_number(rest, region) for region in regions):
            return True
    return False


def gateway_hosts(trunks: Iterable[Trunk]) -> frozenset[str]:
    """Hosts of the gateways of trunks that cost something; simulated phones and this machine are not among them."""
    found = set()
    for trunk in trunks:
        for gateway in () if trunk.simulated else trunk.gateway_list:
            host = Uri.parse(gateway.uri).bare_host.lower()
            if host != "localhost" and not _is_loopback(host):
                found.add(host)
    return frozenset(found)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
