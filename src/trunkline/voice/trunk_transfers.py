"""Transfers that a customer's PBX asks for by REFER in a call of its trunk (Twilio's Call Transfer, blind ones).

The other party is connected with the target by a document of ours, so that whatever holds for <Dial> holds here; the
PBX hears that it is done as soon as that begins, and is hung up. A number is meant by `tel:`, and by `sip:` with the
trunk's own domain or a name of this server as host; every other host is a SIP address. Only the PBX may ask, not the
carrier's side, and once in a call: who it was transferred to is somebody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

from trunkline.model.sip_trunk import (
    CUSTOMER_TRUNK,
    DISABLE_ALL,
    ENABLE_ALL,
    FROM_TRANSFEREE,
    SipTrunk,
    TrunkCall,
)
from trunkline.sip import number as numbers
from trunkline.voice.customer_trunks import dial
from trunkline.voice.steps import Inline

if TYPE_CHECKING:
    from trunkline.model.call import Call
    from trunkline.settings import Sip
    from trunkline.sip.refer import ReferRequest
    from trunkline.sip.uri import Uri
    from trunkline.voice.service import VoiceServices

KEPT: Final = frozenset({"transport", "user"})
"""Parameters of a target's URI that are sent on."""


class Declined(Exception):
    """A transfer is not made."""


def transfer(services: VoiceServices, record: Call, refer: ReferRequest, *, by_callee: bool) -> Inline:
    """What the other party goes on with. Raises Declined."""
    about = record.extra[CUSTOMER_TRUNK]
    trunk = services.directory.sip.trunk_of_sid(about["sid"])
    originating = about["direction"] == TrunkCall.ORIGINATING
    if trunk is None or trunk.transfer_mode == DISABLE_ALL:
        raise Declined("the trunk's TransferMode is disable-all")
    if by_callee is not originating or about.get("transferred"):
        raise Declined("only the PBX may transfer a call of its trunk, and once")
    if "replaces" in refer.uri.headers:
        raise Declined("attended transfers (Replaces) are not offered")
    number, address = "", ""
    if _is_number(services, refer.uri, trunk):
        number = numbers.e164(refer.uri.user)
        if not number or trunk.transfer_mode != ENABLE_ALL:
            raise Declined(f"{refer.uri.user[:60]!r} is no E.164 number, or TransferMode is sip-only")
    else:
        address = _address(refer.uri, secure=trunk.secure)
    denied = services.outbound.denial(record.account_sid, number or address)
    if denied is not None:
        raise Declined(denied.why)
    transferee, transferor = (record.from_, record.to) if originating else (record.to, record.from_)
    caller = transferee if trunk.transfer_caller_id == FROM_TRANSFEREE else transferor
    record.extra[CUSTOMER_TRUNK] = {**about, "transferred": True, "recovery": ""}
    return Inline(dial(trunk, f"<Number>{number}</Number>" if number else f"<Sip>{escape(address)}</Sip>", caller))


def _is_number(services: VoiceServices, uri: Uri, trunk: SipTrunk) -> bool:
    if uri.scheme == "tel" or services.directory.sip.trunk(uri.host) is trunk:
        return True
    return uri.host in own_names(services.settings.sip)


def own_names(sip: Sip) -> frozenset[str]:
    """Hosts by which peers know this server."""
    return frozenset(name.lower() for name in (sip.domain, sip.advertised, sip.host) if name)


def _address(uri: Uri, *, secure: bool) -> str:
    params = {name: value for name, value in uri.params.items() if name in KEPT}
    if secure:
        params = {"secure": "true"}
    return str(uri.replace(scheme="sip", password=None, headers={}, params=params))
