"""Encoding and decoding PDUs (SMPP 3.4 §3.2, §4).

Strict about lengths: nothing is read past the PDU, nothing is sent that does not fit. Lenient about values, and
about what deployed peers get wrong: error responses without a body, a message_id without its final NUL, up to three
zero octets behind the last TLV. submit_sm, deliver_sm and the responses that carry a message_id are written out by
hand because every message passes them; the other PDUs follow `LAYOUTS`.
"""

from collections.abc import Callable
from struct import Struct
from struct import error as struct_error
from typing import Any, Final

from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import DecodeError, EncodeError, UnknownCommandError

HEADER: Final = Struct(">IIII")  # command_length, command_id, command_status, sequence_number
_TLV_HEADER: Final = Struct(">HH")
_pack_header = HEADER.pack
_H: Final = c.HEADER_OCTETS

# Kinds of field. A positive kind is a C-octet string of at most so many octets, its NUL included.
_OCTET: Final = 0
_MESSAGE: Final = -1  # sm_length and short_message
_TLVS: Final = -2
_DESTINATIONS: Final = -3
_UNSUCCESSFUL: Final = -4

_SERVICE_TYPE: Final = 6
_ADDRESS: Final = 21
_LONG_ADDRESS: Final = 65
_TIME: Final = 17
_MESSAGE_ID: Final = 65
# §5.2.1-5.2.3 say 16, 9 and 13; operators hand out longer ones.
_CREDENTIAL: Final = 65
_ADDRESS_RANGE: Final = 41

Layout = tuple[tuple[str, int], ...]

_SOURCE: Final[Layout] = (("source_ton", _OCTET), ("source_npi", _OCTET), ("source", _ADDRESS))
_DESTINATION: Final[Layout] = (
    ("destination_ton", _OCTET),
    ("destination_npi", _OCTET),
    ("destination", _ADDRESS),
)
_AFTER_ADDRESSES: Final[Layout] = (
    ("esm_class", _OCTET),
    ("protocol_id", _OCTET),
    ("priority", _OCTET),
    ("schedule_delivery_time", _TIME),
    ("validity_period", _TIME),
    ("registered_delivery", _OCTET),
    ("replace_if_present", _OCTET),
    ("data_coding", _OCTET),
    ("default_message_id", _OCTET),
    ("message", _MESSAGE),
    ("tlvs", _TLVS),
)
_BIND: Final[Layout] = (
    ("system_id", _CREDENTIAL),
    ("password", _CREDENTIAL),
    ("system_type", _CREDENTIAL),
    ("interface_version", _OCTET),
    ("addr_ton", _OCTET),
    ("addr_npi", _OCTET),
    ("address_range", _ADDRESS_RANGE),
)
_BIND_RESP: Final[Layout] = (("system_id", _CREDENTIAL), ("tlvs", _TLVS))

LAYOUTS: Final[dict[type[p.Pdu], Layout]] = {
    p.BindReceiver: _BIND,
    p.BindTransmitter: _BIND,
    p.BindTransceiver: _BIND,
    p.BindReceiverResp: _BIND_RESP,
    p.BindTransmitterResp: _BIND_RESP,
    p.BindTransceiverResp: _BIND_RESP,
    p.Outbind: (("system_id", _CREDENTIAL), ("password", _CREDENTIAL)),
    p.DataSm: (
        ("service_type", _SERVICE_TYPE),
        ("source_ton", _OCTET),
        ("source_npi", _OCTET),
        ("source", _LONG_ADDRESS),
        ("destination_ton", _OCTET),
        ("destination_npi", _OCTET),
        ("destination", _LONG_ADDRESS),
        ("esm_class", _OCTET),
        ("registered_delivery", _OCTET),
        ("data_coding", _OCTET),
        ("tlvs", _TLVS),
    ),
    p.SubmitMulti: (
        ("service_type", _SERVICE_TYPE),
        *_SOURCE,
        ("destinations", _DESTINATIONS),
        *_AFTER_ADDRESSES,
    ),
    p.SubmitMultiResp: (("message_id", _MESSAGE_ID), ("unsuccessful", _UNSUCCESSFUL), ("tlvs", _TLVS)),
    p.QuerySm: (("message_id", _MESSAGE_ID), *_SOURCE),
    p.QuerySmResp: (
        ("message_id", _MESSAGE_ID),
        ("final_date", _TIME),
        ("message_state", _OCTET),
        ("error_code", _OCTET),
    ),
    p.CancelSm: (("service_type", _SERVICE_TYPE), ("message_id", _MESSAGE_ID), *_SOURCE, *_DESTINATION),
    p.CancelSmResp: (),
    p.ReplaceSm: (
        ("message_id", _MESSAGE_ID),
        *_SOURCE,
        ("schedule_delivery_time", _TIME),
        ("validity_period", _TIME),
        ("registered_delivery", _OCTET),
        ("default_message_id", _OCTET),
        ("message", _MESSAGE),
        ("tlvs", _TLVS),
    ),
    p.ReplaceSmResp: (),
    p.AlertNotification: (
        ("source_ton", _OCTET),
        ("source_npi", _OCTET),
        ("source", _LONG_ADDRESS),
        ("esme_ton", _OCTET),
        ("esme_npi", _OCTET),
        ("esme", _LONG_ADDRESS),
        ("tlvs", _TLVS),
    ),
    p.EnquireLink: (),
    p.EnquireLinkResp: (),
    p.Unbind: (),
    p.UnbindResp: (),
    p.GenericNack: (),
}
_SMS: Final[dict[int, type[p.Sm]]] = {c.SUBMIT_SM: p.SubmitSm, c.DELIVER_SM: p.DeliverSm}
_MESSAGE_RESPS: Final[dict[int, type[p.MessageResp]]] = {
    c.SUBMIT_SM_RESP: p.SubmitSmResp,
    c.DELIVER_SM_RESP: p.DeliverSmResp,
    c.DATA_SM_RESP: p.DataSmResp,
}
_BY_COMMAND_ID: Final[dict[int, tuple[type[p.Pdu], Layout]]] = {
    kind.command_id: (kind, layout) for kind, layout in LAYOUTS.items()
}
PDUS: Final[tuple[type[p.Pdu], ...]] = (*LAYOUTS, *_SMS.values(), *_MESSAGE_RESPS.values())


# --- decoding


def decode(command_id: int, status: int, buffer: bytes, start: int, end: int) -> p.Pdu:
    """The PDU whose body is `buffer[start:end]`. Raises `DecodeError`, `UnknownCommandError` among them."""
    if command_id in _MESSAGE_RESPS:
        return _decode_message_resp(_MESSAGE_RESPS[command_id], status, buffer, start, end)
    if command_id in _SMS:
        return _decode_sm(_SMS[command_id], buffer, start, end)
    known = _BY_COMMAND_ID.get(command_id)
    if known is None:
        raise UnknownCommandError(f"unknown command_id 0x{command_id:08X}", c.ESME_RINVCMDID)
    kind, layout = known
    if not command_id & c.RESPONSE:
        return kind(**_decode_fields(layout, buffer, start, end))
    if start == end:
        return kind(status=status)
    try:
        return kind(status=status, **_decode_fields(layout, buffer, start, end))
    except DecodeError:
        if status:  # whatever follows an error status does not change what it says
            return kind(status=status)
        raise


def _decode_sm(kind: type[p.Sm], buffer: bytes, start: int, end: int) -> p.Sm:
    find = buffer.find
    z1 = find(0, start, min(end, start + _SERVICE_TYPE))
    z2 = find(0, z1 + 3, min(end, z1 + 3 + _ADDRESS))
    z3 = find(0, z2 + 3, min(end, z2 + 3 + _ADDRESS))
    z4 = find(0, z3 + 4, min(end, z3 + 4 + _TIME))
    z5 = find(0, z4 + 1, min(end, z4 + 1 + _TIME))
    if z1 < 0 or z2 < 0 or z3 < 0 or z4 < 0 or z5 < 0:
        raise DecodeError("unterminated or too long C-octet string", c.ESME_RINVMSGLEN)
    message = z5 + 6
    if message > end:
        raise DecodeError("PDU body cut short", c.ESME_RINVMSGLEN)
    stop = message + buffer[z5 + 5]
    if stop > end:
        raise DecodeError("sm_length reaches past the PDU", c.ESME_RINVMSGLEN)
    return kind(
        service_type=buffer[start:z1].decode("latin-1") if z1 > start else "",
        source_ton=buffer[z1 + 1],
        source_npi=buffer[z1 + 2],
        source=buffer[z1 + 3 : z2].decode("latin-1"),
        destination_ton=buffer[z2 + 1],
        destination_npi=buffer[z2 + 2],
        destination=buffer[z2 + 3 : z3].decode("latin-1"),
        esm_class=buffer[z3 + 1],
        protocol_id=buffer[z3 + 2],
        priority=buffer[z3 + 3],
        schedule_delivery_time=buffer[z3 + 4 : z4].decode("latin-1") if z4 > z3 + 4 else "",
        validity_period=buffer[z4 + 1 : z5].decode("latin-1") if z5 > z4 + 1 else "",
        registered_delivery=buffer[z5 + 1],
        replace_if_present=buffer[z5 + 2],
        data_coding=buffer[z5 + 3],
        default_message_id=buffer[z5 + 4],
        message=buffer[message:stop],
        tlvs=_decode_tlvs(buffer, stop, end) if stop < end else p.NO_TLVS,
    )


def _decode_message_resp(kind: type[p.MessageResp], status: int, buffer: bytes, start: int, end: int) -> p.MessageResp:
    if start == end:
        return kind(status=status)
    stop = buffer.find(0, start, end)
    after = stop + 1
    if stop < 0:
        stop = after = end
    if stop - start >= _MESSAGE_ID:
        if status:
            return kind(status=status)
        raise DecodeError("message_id too long", c.ESME_RINVMSGLEN)
    message_id = buffer[start:stop].decode("latin-1")
    if after == end:
        return kind(status=status, message_id=message_id)
    try:
        return kind(status=status, message_id=message_id, tlvs=_decode_tlvs(buffer, after, end))
    except DecodeError:
        if status:
            return kind(status=status, message_id=message_id)
        raise


def _decode_tlvs(buffer: bytes, at: int, end: int) -> tuple[p.Tlv, ...]:
    tlvs: list[p.Tlv] = []
    while at < end:
        if end - at < 4:
            if any(buffer[at:end]):
                raise DecodeError("TLV header cut short", c.ESME_RINVOPTPARSTREAM)
            break
        tag, length = _TLV_HEADER.unpack_from(buffer, at)
        at += 4 + length
        if at > end:
            raise DecodeError("TLV value reaches past the PDU", c.ESME_RINVOPTPARSTREAM)
        if len(tlvs) == c.MAX_TLVS:
            raise DecodeError("too many TLVs", c.ESME_RINVOPTPARSTREAM)
        tlvs.append((tag, buffer[at - length : at]))
    return tuple(tlvs)


def _decode_fields(layout: Layout, buffer: bytes, at: int, end: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, kind in layout:
        if kind == _TLVS:
            fields[name], at = _decode_tlvs(buffer, at, end), end
        elif kind == _DESTINATIONS:
            fields[name], at = _decode_destinations(buffer, at, end)
        elif kind == _UNSUCCESSFUL:
            fields[name], at = _decode_unsuccessful(buffer, at, end)
        elif kind == _MESSAGE:
            length, at = _octet(buffer, at, end)
            if at + length > end:
                raise DecodeError("sm_length reaches past the PDU", c.ESME_RINVMSGLEN)
            fields[name], at = buffer[at : at + length], at + length
        elif kind == _OCTET:
            fields[name], at = _octet(buffer, at, end)
        else:
            fields[name], at = _string(buffer, at, end, kind)
    return fields


def _octet(buffer: bytes, at: int, end: int) -> tuple[int, int]:
    if at >= end:
        raise DecodeError("PDU body cut short", c.ESME_RINVMSGLEN)
    return buffer[at], at + 1


def _string(buffer: bytes, at: int, end: int, limit: int) -> tuple[str, int]:
    stop = buffer.find(0, at, min(end, at + limit))
    if stop < 0:
        raise DecodeError("unterminated or too long C-octet string", c.ESME_RINVMSGLEN)
    return buffer[at:stop].decode("latin-1"), stop + 1


def _address(buffer: bytes, at: int, end: int) -> tuple[p.Address, int]:
    ton, at = _octet(buffer, at, end)
    npi, at = _octet(buffer, at, end)
    address, at = _string(buffer, at, end, _ADDRESS)
    return p.Address(ton, npi, address), at


def _decode_destinations(buffer: bytes, at: int, end: int) -> tuple[tuple[p.Address | str, ...], int]:
    count, at = _octet(buffer, at, end)
    found: list[p.Address | str] = []
    for _ in range(count):
        flag, at = _octet(buffer, at, end)
        if flag == 1:
            address, at = _address(buffer, at, end)
            found.append(address)
        elif flag == 2:
            name, at = _string(buffer, at, end, _ADDRESS)
            found.append(name)
        else:
            raise DecodeError(f"dest_flag {flag}", c.ESME_RINVMSGLEN)
    return tuple(found), at


def _decode_unsuccessful(buffer: bytes, at: int, end: int) -> tuple[tuple[tuple[p.Address, int], ...], int]:
    count, at = _octet(buffer, at, end)
    found: list[tuple[p.Address, int]] = []
    for _ in range(count):
        address, at = _address(buffer, at, end)
        if at + 4 > end:
            raise DecodeError("PDU body cut short", c.ESME_RINVMSGLEN)
        found.append((address, int.from_bytes(buffer[at : at + 4], "big")))
        at += 4
    return tuple(found), at


# --- encoding


def encode(pdu: p.Pdu, sequence: int) -> bytes:
    """The whole PDU with its header. Raises `EncodeError` when a field does not fit."""
    encoder = _ENCODERS.get(type(pdu))
    if encoder is not None:
        return encoder(pdu, sequence)
    layout = LAYOUTS.get(type(pdu))
    if layout is None:
        raise EncodeError(f"{type(pdu).__name__} is no PDU")
    status = pdu.status if isinstance(pdu, p.Response) else 0
    # §4.1.2, §4.4.2, §4.5.2: no body beside an error status
    body = b"" if status else _encode_fields(pdu, layout)
    return _whole(pdu.command_id, status, sequence, body)


def header_only(command_id: int, status: int, sequence: int) -> bytes:
    """A PDU without a body: enquire_link and the like, and error responses."""
    return _pack_header(_H, command_id, status, sequence)


def _whole(command_id: int, status: int, sequence: int, body: bytes) -> bytes:
    if len(body) > c.MAX_PDU_OCTETS - _H:
        raise EncodeError(f"PDU of {len(body) + _H} octets, at most {c.MAX_PDU_OCTETS} are sent")
    return _pack_header(_H + len(body), command_id, status, sequence) + body


def _encode_sm(sm: Any, sequence: int) -> bytes:
    message = sm.message
    try:
        body = b"%b\0%c%c%b\0%c%c%b\0%c%c%c%b\0%b\0%c%c%c%c%c%b" % (
            _text(sm.service_type, _SERVICE_TYPE) if sm.service_type else b"",
            sm.source_ton,
            sm.source_npi,
            _text(sm.source, _ADDRESS),
            sm.destination_ton,
            sm.destination_npi,
            _text(sm.destination, _ADDRESS),
            sm.esm_class,
            sm.protocol_id,
            sm.priority,
            _text(sm.schedule_delivery_time, _TIME) if sm.schedule_delivery_time else b"",
            _text(sm.validity_period, _TIME) if sm.validity_period else b"",
            sm.registered_delivery,
            sm.replace_if_present,
            sm.data_coding,
            sm.default_message_id,
            len(message),
            message,
        )
    except (OverflowError, TypeError) as error:
        raise EncodeError(f"field out of range: {error}") from None
    if len(message) > c.MAX_SHORT_MESSAGE_OCTETS:
        raise EncodeError(f"short_message of {len(message)} octets: use message_payload")
    if sm.tlvs:
        body += _encode_tlvs(sm.tlvs)
        return _whole(sm.command_id, 0, sequence, body)
    return _pack_header(_H + len(body), sm.command_id, 0, sequence) + body


def _encode_message_resp(pdu: Any, sequence: int) -> bytes:
    if pdu.status and pdu.command_id != c.DELIVER_SM_RESP:
        return _pack_header(_H, pdu.command_id, pdu.status, sequence)
    body = _text(pdu.message_id, _MESSAGE_ID) + b"\0"
    if pdu.tlvs:
        body += _encode_tlvs(pdu.tlvs)
    return _whole(pdu.command_id, pdu.status, sequence, body)


_ENCODERS: Final[dict[type[p.Pdu], Callable[[Any, int], bytes]]] = {
    p.SubmitSm: _encode_sm,
    p.DeliverSm: _encode_sm,
    p.SubmitSmResp: _encode_message_resp,
    p.DeliverSmResp: _encode_message_resp,
    p.DataSmResp: _encode_message_resp,
}


def _text(value: str, limit: int) -> bytes:
    try:
        octets = value.encode("latin-1")
    except (UnicodeEncodeError, AttributeError):
        raise EncodeError(f"{value!r} is not Latin-1 text") from None
    if len(octets) >= limit or 0 in octets:
        raise EncodeError(f"{value!r} does not fit into a C-octet string of {limit} octets")
    return octets


def _encode_tlvs(tlvs: tuple[p.Tlv, ...]) -> bytes:
    try:
        return b"".join([_TLV_HEADER.pack(tag, len(value)) + value for tag, value in tlvs])
    except (struct_error, TypeError) as error:
        raise EncodeError(f"TLV out of range: {error}") from None


def _one_octet(value: int) -> bytes:
    try:
        return bytes((value,))
    except (ValueError, TypeError):
        raise EncodeError(f"{value!r} does not fit into an octet") from None


def _encode_fields(pdu: p.Pdu, layout: Layout) -> bytes:
    pieces: list[bytes] = []
    for name, kind in layout:
        value = getattr(pdu, name)
        if kind == _TLVS:
            pieces.append(_encode_tlvs(value))
        elif kind == _DESTINATIONS:
            pieces.append(_one_octet(len(value)))
            pieces.extend(
                b"\2" + _text(each, _ADDRESS) + b"\0" if isinstance(each, str) else b"\1" + _encode_address(each)
                for each in value
            )
        elif kind == _UNSUCCESSFUL:
            pieces.append(_one_octet(len(value)))
            pieces.extend(_encode_address(each) + status.to_bytes(4, "big") for each, status in value)
        elif kind == _MESSAGE:
            if len(value) > c.MAX_SHORT_MESSAGE_OCTETS:
                raise EncodeError(f"short_message of {len(value)} octets: use message_payload")
            pieces.append(_one_octet(len(value)) + value)
        elif kind == _OCTET:
            pieces.append(_one_octet(value))
        else:
            pieces.append(_text(value, kind) + b"\0")
    return b"".join(pieces)


def _encode_address(address: p.Address) -> bytes:
    return _one_octet(address.ton) + _one_octet(address.npi) + _text(address.address, _ADDRESS) + b"\0"
