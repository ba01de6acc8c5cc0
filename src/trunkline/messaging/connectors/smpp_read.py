"""From a deliver_sm or data_sm to a receipt or an inbound message, whatever the SMSC's dialect."""

from typing import Final

import msgspec

from trunkline.messaging.connectors.base import InboundPart, Receipt
from trunkline.messaging.connectors.smpp_encode import ALPHABETS
from trunkline.messaging.connectors.smpp_errors import UNKNOWN_ERROR
from trunkline.model import phone
from trunkline.settings import Smpp
from trunkline.smpp import addresses, receipt
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.long_message import sar_of
from trunkline.smpp.receipt import ReceiptState
from trunkline.sms import data_coding, segment, udh
from trunkline.sms.data_coding import DefaultAlphabet

ID_DIALECTS: Final = {"text": "as_is", "decimal": "strip_zeros", "hex": "hex_to_dec"}
"""`submit_id` and `receipt_id` -> how ids are brought to one form: numbers meet as decimals without leading zeros."""
MAX_ERROR_CHARS: Final = 32
MAX_DATE_CHARS: Final = 20
_FAILED: Final = frozenset({ReceiptState.UNDELIVERABLE, ReceiptState.SKIPPED})


class Reader:
    """One connector's way to read what its SMSC delivers. Never raises."""

    def __init__(self, settings: Smpp) -> None:
        self._name = settings.name
        self._alphabet = ALPHABETS[settings.default_alphabet]
        self._country = settings.number_country
        self._errors = settings.receipt_errors
        self._receipt_id = receipt.normaliser(ID_DIALECTS[settings.receipt_id])

    def read(self, pdu: p.DeliverSm | p.DataSm) -> Receipt | InboundPart | None:
        """None for a receipt that names no message: nobody could be told."""
        found = receipt.parse(pdu)
        if found is not None:
            return self._receipt(found)
        tlvs = pdu.tlvs
        # Some SMSCs forget esm_class. The text alone is no proof, a handset could have written it; these TLVs are.
        if tlvs and p.tlv(tlvs, c.TAG_RECEIPTED_MESSAGE_ID) and p.tlv(tlvs, c.TAG_MESSAGE_STATE):
            found = receipt.parse(msgspec.structs.replace(pdu, esm_class=pdu.esm_class | c.ESM_RECEIPT))
            if found is not None:
                return self._receipt(found)
        return self._inbound(pdu)

    def _receipt(self, found: receipt.Receipt) -> Receipt | None:
        if not found.message_id:
            return None
        state = found.state
        error = found.error[:MAX_ERROR_CHARS]
        code = self._errors.get(error, 0) if self._errors else 0
        if state in _FAILED and not code and error.strip("0"):
            code = UNKNOWN_ERROR
        if found.intermediate:
            name = "enroute"
        elif state is ReceiptState.SKIPPED:  # SMPP 5.0: taken, but not transmitted
            name = "undeliverable"
        else:
            name = state.value
        return Receipt(
            connector=self._name,
            carrier_id=self._receipt_id(found.message_id),
            state=name,
            error="" if state is ReceiptState.DELIVERED else error,
            error_code=0 if state is ReceiptState.DELIVERED else code,
            done_date=found.done_date[:MAX_DATE_CHARS],
        )

    def _inbound(self, pdu: p.DeliverSm | p.DataSm) -> InboundPart:
        header, payload, concat = concat_of(pdu)
        total = concat.total if concat is not None else 1
        # What SMPP 5.0 and some 3.4 servers add; of a long message it may be one id for all parts.
        own_id = p.tlv(pdu.tlvs, c.TAG_RECEIPTED_MESSAGE_ID) if pdu.tlvs and total == 1 else None
        text, encoding = text_of(pdu.data_coding, payload, header, self._alphabet, whole=total == 1)
        return InboundPart(
            connector=self._name,
            from_=self._number(pdu.source_ton, pdu.source),
            to=self._number(pdu.destination_ton, pdu.destination),
            text=text,
            encoding=encoding,
            part=concat.sequence if concat is not None else 1,
            total=total,
            reference=concat.reference if concat is not None else -1,
            reference_width=concat.width if concat is not None else 8,
            carrier_id=own_id.split(b"\0", 1)[0].decode("latin-1") if own_id else "",
        )

    def _number(self, ton: int, address: str) -> str:
        if self._country and ton in (addresses.TON_UNKNOWN, addresses.TON_NATIONAL) and address.isdecimal():
            national = phone.details(address, self._country)
            if national.valid or (ton == addresses.TON_NATIONAL and phone.is_e164(national.phone_number)):
                return national.phone_number
        return addresses.number(ton, address)


def text_of(coding: int, payload: bytes, header: udh.Udh, alphabet: DefaultAlphabet, *, whole: bool) -> tuple[str, str]:
    """Text and encoding of a payload without its `header`. Of a part (not `whole`) the text may begin or end with half
    a surrogate pair."""
    charset = data_coding.charset_of(coding)
    if charset == "ucs2":
        if whole:
            return data_coding.decode_ucs2(payload), "ucs2"
        # The halves meet when the parts are joined.
        return payload[: len(payload) & ~1].decode("utf-16-be", "surrogatepass"), "ucs2"
    text = data_coding.decode(
        coding, payload, default=alphabet, header_octets=header.octets, single_shift=header.single_shift
    )
    if text is None:  # "binary" is what many operators call 8-bit text
        text = payload.decode("latin-1")
    return text, "gsm7" if charset == "default" else segment.encoding_of(text)


def concat_of(pdu: p.Sm | p.DataSm | p.SubmitMulti) -> tuple[udh.Udh, bytes, udh.Concat | None]:
    """User data header, the payload behind it, and which part of which long message it is, told by header or TLVs."""
    tlvs = pdu.tlvs
    payload = pdu.payload
    header = udh.NO_UDH
    if pdu.esm_class & c.ESM_UDHI:
        header, payload = udh.parse(payload)
    concat = header.concat
    if concat is None and tlvs and (sar := sar_of(tlvs)) is not None:
        concat = udh.Concat(*sar, 16)
    return header, payload, concat if concat is not None and concat.total > 1 else None
