"""From a message to the submit_sm PDUs that carry it, as one carrier wants them."""

from functools import lru_cache
from typing import Final

from trunkline.model.message import Message
from trunkline.settings import Smpp
from trunkline.smpp import addresses, times
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.long_message import sar_tlvs
from trunkline.sms import data_coding, segment, udh
from trunkline.sms.data_coding import DefaultAlphabet

CACHED: Final = 4096
"""Senders, and validity periods, whose encoded form is remembered."""
MAX_PAYLOAD_OCTETS: Final = 65_535

ALPHABETS: Final[dict[str, DefaultAlphabet]] = {
    "gsm7": "gsm7",
    "gsm7-packed": "gsm7_packed",
    "latin1": "latin1",
    "ascii": "ascii",
}
REGISTERED_DELIVERY: Final = {
    "final": c.RECEIPT_ALWAYS,
    "failure": c.RECEIPT_ON_FAILURE,
    "final+intermediate": c.RECEIPT_ALWAYS | c.RECEIPT_INTERMEDIATE,
    "none": 0,
}


class Encoder:
    """One connector's way to write messages; everything that never changes is worked out once."""

    def __init__(self, settings: Smpp) -> None:
        self._alphabet = ALPHABETS[settings.default_alphabet]
        self._latin1 = settings.latin1
        self._mode = settings.long_messages
        self._width = settings.reference_width
        self._validity = settings.validity
        self._service_type = settings.service_type
        self._plus = settings.plus
        self._destination = (settings.destination_ton, settings.destination_npi)
        self._registered = REGISTERED_DELIVERY[settings.registered_delivery] if settings.receipts else 0
        self._source_own = (settings.source_ton, settings.source_npi)
        self._scheme = addresses.Scheme(plus=settings.plus)
        self._source = lru_cache(CACHED)(self._source_of)
        self._absolute = lru_cache(CACHED)(times.absolute)
        self._relative = lru_cache(CACHED)(times.relative)

    def encode(self, message: Message, sender: str, now_ms: int) -> list[p.SubmitSm]:
        """The PDUs, one a segment. Raises AddressError or TooManySegmentsError, which no other try would mend."""
        coding, bodies = self._bodies(message.text)
        if len(bodies) == 1:
            return [self._submit(message, sender, now_ms, coding, bodies[0], 0, p.NO_TLVS)]
        reference = reference_of(message.sid)
        if self._mode == "payload":
            tlvs: tuple[p.Tlv, ...] = ((c.TAG_MESSAGE_PAYLOAD, b"".join(bodies)[:MAX_PAYLOAD_OCTETS]),)
            return [self._submit(message, sender, now_ms, coding, b"", 0, tlvs)]
        total = len(bodies)
        if self._mode == "sar":
            return [
                self._submit(message, sender, now_ms, coding, body, 0, sar_tlvs(self._masked(reference), total, number))
                for number, body in enumerate(bodies, 1)
            ]
        return [
            self._submit(
                message, sender, now_ms, coding, udh.concat_header(reference, total, number, self._width) + body,
                c.ESM_UDHI, p.NO_TLVS,
            )
            for number, body in enumerate(bodies, 1)
        ]  # fmt: skip

    def _masked(self, reference: int) -> int:
        return reference & 0xFF if self._width == 8 else reference & 0xFFFF

    def _submit(
        self,
        message: Message,
        sender: str,
        now_ms: int,
        coding: int,
        body: bytes,
        esm_class: int,
        tlvs: tuple[p.Tlv, ...],
    ) -> p.SubmitSm:
        source_ton, source_npi, source = self._source(sender)
        destination_ton, destination_npi = self._destination
        destination = message.to
        return p.SubmitSm(
            service_type=self._service_type,
            source_ton=source_ton,
            source_npi=source_npi,
            source=source,
            destination_ton=destination_ton,
            destination_npi=destination_npi,
            destination=destination if self._plus else destination.removeprefix("+"),
            esm_class=esm_class,
            validity_period=self._validity_period(message.valid_until_ms, now_ms),
            registered_delivery=self._registered,
            data_coding=coding,
            message=body,
            tlvs=tlvs,
        )

    def _source_of(self, sender: str) -> tuple[int, int, str]:
        ton, npi, address = addresses.address(sender, self._scheme)
        own_ton, own_npi = self._source_own
        return ton if own_ton is None else own_ton, npi if own_npi is None else own_npi, address

    def _validity_period(self, valid_until_ms: int, now_ms: int) -> str:
        # Whole seconds, so that the messages of one second share a text.
        if not valid_until_ms or self._validity == "none":
            return ""
        if self._validity == "absolute":
            return self._absolute(valid_until_ms // 1000 * 1000)
        return self._relative(min(times.MAX_RELATIVE_S, max(1, (valid_until_ms - now_ms) // 1000)))

    # -- text

    def _bodies(self, text: str) -> tuple[int, list[bytes]]:
        """data_coding and the octets of each segment, headers not included."""
        plan = segment.plan(text, reference_width=self._width)
        alphabet = self._alphabet
        if plan.encoding == "ucs2":
            return self._wide(plan)
        if alphabet == "gsm7":
            return data_coding.DEFAULT, list(plan.segments)
        if not data_coding.carries(alphabet, text):
            return self._wide(segment.plan(text, encoding="ucs2", reference_width=self._width))
        segments = plan.segments
        if self._mode == "payload" and len(segments) > 1:
            segments = (b"".join(segments), b"")  # packed septets do not join as octets
        header = segment.header_octets(len(segments) > 1, self._width) if self._mode == "udh" else 0
        return data_coding.DEFAULT, [
            data_coding.encode_segment("gsm7", each, default=alphabet, header_octets=header) for each in segments
        ]

    def _wide(self, plan: segment.Plan) -> tuple[int, list[bytes]]:
        """What the default alphabet cannot carry: Latin-1 where that is allowed and enough, else UCS-2."""
        if self._latin1:
            try:
                octets = plan.text.encode("latin-1")
            except UnicodeEncodeError:
                pass
            else:
                return data_coding.LATIN1, self._split(octets)
        return data_coding.UCS2, list(plan.segments)

    def _split(self, octets: bytes) -> list[bytes]:
        if len(octets) <= segment.USER_DATA_OCTETS:
            return [octets]
        size = segment.USER_DATA_OCTETS - segment.header_octets(True, self._width)
        bodies = [octets[at : at + size] for at in range(0, len(octets), size)]
        if len(bodies) > segment.MAX_SEGMENTS:
            raise segment.TooManySegmentsError(f"{len(bodies)} segments")
        return bodies


def reference_of(sid: str) -> int:
    """The concatenation reference of a message, from its SID's random end: the parts of a repeated submit then
    complete what the handset has, instead of showing up as a second message."""
    return int(sid[-4:], 16)
