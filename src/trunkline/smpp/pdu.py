"""The PDUs of SMPP 3.4 as records.

Text fields are `str` (Latin-1 on the wire), messages and TLV values `bytes`. The sequence number is not part of
the record: the session assigns it, and hands it over beside a received PDU. Responses carry their status; one
with an error status may lack its body, then its other fields have their defaults.
"""

from typing import ClassVar, Final

import msgspec

from trunkline.smpp import constants as c

Tlv = tuple[int, bytes]
NO_TLVS: Final[tuple[Tlv, ...]] = ()


class Pdu(msgspec.Struct, frozen=True, gc=False):
    """Base of all."""

    command_id: ClassVar[int] = 0


class Request(Pdu, frozen=True, gc=False):
    """Base of the PDUs that ask for a response, and of the two that do not (outbind, alert_notification)."""


class Response(Pdu, frozen=True, gc=False, kw_only=True):
    """Base of the responses."""

    status: int = c.ESME_ROK


class Bind(Request, frozen=True, gc=False, kw_only=True):
    """§4.1.1, §4.1.3, §4.1.5."""

    system_id: str = ""
    password: str = ""
    system_type: str = ""
    interface_version: int = c.INTERFACE_VERSION_34
    addr_ton: int = 0
    addr_npi: int = 0
    address_range: str = ""


class BindReceiver(Bind, frozen=True, gc=False):
    command_id: ClassVar[int] = c.BIND_RECEIVER


class BindTransmitter(Bind, frozen=True, gc=False):
    command_id: ClassVar[int] = c.BIND_TRANSMITTER


class BindTransceiver(Bind, frozen=True, gc=False):
    command_id: ClassVar[int] = c.BIND_TRANSCEIVER


class BindResp(Response, frozen=True, gc=False, kw_only=True):
    system_id: str = ""
    tlvs: tuple[Tlv, ...] = NO_TLVS

    @property
    def interface_version(self) -> int | None:
        """sc_interface_version; `None` when the peer speaks 3.3 or does not say."""
        value = tlv(self.tlvs, c.TAG_SC_INTERFACE_VERSION)
        return value[0] if value else None


class BindReceiverResp(BindResp, frozen=True, gc=False):
    command_id: ClassVar[int] = c.BIND_RECEIVER_RESP


class BindTransmitterResp(BindResp, frozen=True, gc=False):
    command_id: ClassVar[int] = c.BIND_TRANSMITTER_RESP


class BindTransceiverResp(BindResp, frozen=True, gc=False):
    command_id: ClassVar[int] = c.BIND_TRANSCEIVER_RESP


class Outbind(Request, frozen=True, gc=False):
    """§4.1.7; has no response."""

    command_id: ClassVar[int] = c.OUTBIND
    system_id: str = ""
    password: str = ""


class Sm(Request, frozen=True, gc=False, kw_only=True):
    """The fields submit_sm and deliver_sm share (§4.4.1, §4.6.1)."""

    service_type: str = ""
    source_ton: int = 0
    source_npi: int = 0
    source: str = ""
    destination_ton: int = 1
    destination_npi: int = 1
    destination: str = ""
    esm_class: int = 0
    protocol_id: int = 0
    priority: int = 0
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    replace_if_present: int = 0
    data_coding: int = 0
    default_message_id: int = 0
    message: bytes = b""
    tlvs: tuple[Tlv, ...] = NO_TLVS

    @property
    def payload(self) -> bytes:
        """short_message, or the message_payload TLV in its place."""
        if self.message or not self.tlvs:
            return self.message
        return tlv(self.tlvs, c.TAG_MESSAGE_PAYLOAD) or b""


class SubmitSm(Sm, frozen=True, gc=False):
    command_id: ClassVar[int] = c.SUBMIT_SM


class DeliverSm(Sm, frozen=True, gc=False):
    command_id: ClassVar[int] = c.DELIVER_SM


class DataSm(Request, frozen=True, gc=False, kw_only=True):
    """§4.7.1; the message is in the message_payload TLV."""

    command_id: ClassVar[int] = c.DATA_SM
    service_type: str = ""
    source_ton: int = 0
    source_npi: int = 0
    source: str = ""
    destination_ton: int = 1
    destination_npi: int = 1
    destination: str = ""
    esm_class: int = 0
    registered_delivery: int = 0
    data_coding: int = 0
    tlvs: tuple[Tlv, ...] = NO_TLVS

    @property
    def payload(self) -> bytes:
        return tlv(self.tlvs, c.TAG_MESSAGE_PAYLOAD) or b""


class MessageResp(Response, frozen=True, gc=False, kw_only=True):
    """Responses that carry a message_id: submit_sm_resp, deliver_sm_resp (empty there), data_sm_resp."""

    message_id: str = ""
    tlvs: tuple[Tlv, ...] = NO_TLVS


class SubmitSmResp(MessageResp, frozen=True, gc=False):
    command_id: ClassVar[int] = c.SUBMIT_SM_RESP


class DeliverSmResp(MessageResp, frozen=True, gc=False):
    command_id: ClassVar[int] = c.DELIVER_SM_RESP


class DataSmResp(MessageResp, frozen=True, gc=False):
    command_id: ClassVar[int] = c.DATA_SM_RESP


class Address(msgspec.Struct, frozen=True, gc=False):
    """An SME address of submit_multi."""

    ton: int
    npi: int
    address: str


class SubmitMulti(Request, frozen=True, gc=False, kw_only=True):
    """§4.5.1; a destination is an address or the name of a distribution list."""

    command_id: ClassVar[int] = c.SUBMIT_MULTI
    service_type: str = ""
    source_ton: int = 0
    source_npi: int = 0
    source: str = ""
    destinations: tuple[Address | str, ...] = ()
    esm_class: int = 0
    protocol_id: int = 0
    priority: int = 0
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    replace_if_present: int = 0
    data_coding: int = 0
    default_message_id: int = 0
    message: bytes = b""
    tlvs: tuple[Tlv, ...] = NO_TLVS

    @property
    def payload(self) -> bytes:
        """short_message, or the message_payload TLV in its place."""
        return self.message or tlv(self.tlvs, c.TAG_MESSAGE_PAYLOAD) or b""


class SubmitMultiResp(Response, frozen=True, gc=False, kw_only=True):
    """§4.5.2; `unsuccessful` pairs each refused address with its status."""

    command_id: ClassVar[int] = c.SUBMIT_MULTI_RESP
    message_id: str = ""
    unsuccessful: tuple[tuple[Address, int], ...] = ()
    tlvs: tuple[Tlv, ...] = NO_TLVS


class QuerySm(Request, frozen=True, gc=False, kw_only=True):
    """§4.8.1."""

    command_id: ClassVar[int] = c.QUERY_SM
    message_id: str = ""
    source_ton: int = 0
    source_npi: int = 0
    source: str = ""


class QuerySmResp(Response, frozen=True, gc=False, kw_only=True):
    """§4.8.2; `message_state` as in §5.2.28."""

    command_id: ClassVar[int] = c.QUERY_SM_RESP
    message_id: str = ""
    final_date: str = ""
    message_state: int = 0
    error_code: int = 0


class CancelSm(Request, frozen=True, gc=False, kw_only=True):
    """§4.9.1."""

    command_id: ClassVar[int] = c.CANCEL_SM
    service_type: str = ""
    message_id: str = ""
    source_ton: int = 0
    source_npi: int = 0
    source: str = ""
    destination_ton: int = 0
    destination_npi: int = 0
    destination: str = ""


class CancelSmResp(Response, frozen=True, gc=False):
    command_id: ClassVar[int] = c.CANCEL_SM_RESP


class ReplaceSm(Request, frozen=True, gc=False, kw_only=True):
    """§4.10.1."""

    command_id: ClassVar[int] = c.REPLACE_SM
    message_id: str = ""
    source_ton: int = 0
    source_npi: int = 0
    source: str = ""
    schedule_delivery_time: str = ""
    validity_period: str = ""
    registered_delivery: int = 0
    default_message_id: int = 0
    message: bytes = b""
    tlvs: tuple[Tlv, ...] = NO_TLVS


class ReplaceSmResp(Response, frozen=True, gc=False):
    command_id: ClassVar[int] = c.REPLACE_SM_RESP


class AlertNotification(Request, frozen=True, gc=False, kw_only=True):
    """§4.12.1; has no response."""

    command_id: ClassVar[int] = c.ALERT_NOTIFICATION
    source_ton: int = 0
    source_npi: int = 0
    source: str = ""
    esme_ton: int = 0
    esme_npi: int = 0
    esme: str = ""
    tlvs: tuple[Tlv, ...] = NO_TLVS


class EnquireLink(Request, frozen=True, gc=False):
    command_id: ClassVar[int] = c.ENQUIRE_LINK


class EnquireLinkResp(Response, frozen=True, gc=False):
    command_id: ClassVar[int] = c.ENQUIRE_LINK_RESP


class Unbind(Request, frozen=True, gc=False):
    command_id: ClassVar[int] = c.UNBIND


class UnbindResp(Response, frozen=True, gc=False):
    command_id: ClassVar[int] = c.UNBIND_RESP


class GenericNack(Response, frozen=True, gc=False):
    command_id: ClassVar[int] = c.GENERIC_NACK


def tlv(tlvs: tuple[Tlv, ...], tag: int) -> bytes | None:
    """The value of the first TLV with this tag."""
    for present, value in tlvs:
        if present == tag:
            return value
    return None


def tlv_int(tlvs: tuple[Tlv, ...], tag: int) -> int | None:
    """The value of a TLV as an unsigned integer; `None` when absent or empty."""
    value = tlv(tlvs, tag)
    return int.from_bytes(value, "big") if value else None
