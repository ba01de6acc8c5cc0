"""The three ways a long message travels over SMPP; a route uses one of them, they are never mixed.

UDH: the user data header stands in short_message and esm_class says so (SMPP 3.4 §5.2.12). SAR: the same three
numbers in TLVs, without the indicator (§5.3.2.22-24). Payload: one PDU with everything in message_payload (§5.3.2.32),
which the SMSC splits.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p

LongMode = Literal["udh", "sar", "payload"]


def with_payload(base: p.SubmitSm, payload: bytes) -> p.SubmitSm:
    """`base` with this payload, in short_message when it fits and in message_payload otherwise."""
    if len(payload) <= c.MAX_SHORT_MESSAGE_OCTETS:
        return msgspec.structs.replace(base, message=payload)
    return msgspec.structs.replace(base, message=b"", tlvs=(*base.tlvs, (c.TAG_MESSAGE_PAYLOAD, payload)))


def submits(
    base: p.SubmitSm, bodies: Sequence[bytes], *, mode: LongMode, reference: int = 0, headers: Sequence[bytes] = ()
) -> list[p.SubmitSm]:
    """The PDUs that carry `bodies`, in order, with the other fields from `base`.

    In mode `udh`, `headers` are the user data headers, one per body; a single body may have one too (for a national
    shift table), or none. In mode `payload` headers are left out and the result is one PDU.
    """
    if mode == "payload":
        return [with_payload(base, b"".join(bodies))]
    if mode == "udh" and headers:
        flagged = msgspec.structs.replace(base, esm_class=base.esm_class | c.ESM_UDHI)
        return [with_payload(flagged, header + body) for header, body in zip(headers, bodies, strict=True)]
    if len(bodies) == 1:
        return [with_payload(base, bodies[0])]
    if mode == "udh":
        raise ValueError("several bodies in mode udh need their headers")
    return [
        with_payload(msgspec.structs.replace(base, tlvs=(*base.tlvs, *sar_tlvs(reference, len(bodies), number))), body)
        for number, body in enumerate(bodies, 1)
    ]


def sar_tlvs(reference: int, total: int, sequence: int) -> tuple[p.Tlv, ...]:
    """sar_msg_ref_num (modulo 2^16), sar_total_segments and sar_segment_seqnum."""
    return (
        (c.TAG_SAR_MSG_REF_NUM, (reference & 0xFFFF).to_bytes(2, "big")),
        (c.TAG_SAR_TOTAL_SEGMENTS, bytes((total,))),
        (c.TAG_SAR_SEGMENT_SEQNUM, bytes((sequence,))),
    )


def sar_of(tlvs: tuple[p.Tlv, ...]) -> tuple[int, int, int] | None:
    """Reference, total and sequence of a received part; `None` when it is none or its numbers make no sense."""
    if not tlvs:
        return None
    reference = p.tlv_int(tlvs, c.TAG_SAR_MSG_REF_NUM)
    total = p.tlv_int(tlvs, c.TAG_SAR_TOTAL_SEGMENTS)
    sequence = p.tlv_int(tlvs, c.TAG_SAR_SEGMENT_SEQNUM)
    if reference is None or total is None or sequence is None:
        return None
    if not 0 < sequence <= total <= 0xFF:
        return None
    return reference & 0xFFFF, total, sequence
