"""Offer/answer: RFC 3264, and the legacy that carriers still send."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.samples import OFFER
from tests.sip.test_sdp import RICH
from trunkline.sip import sdp
from trunkline.sip.offer_answer import (
    Local,
    MalformedSdp,
    Negotiated,
    NotAcceptable,
    answer,
    conclude,
    offer,
    revise,
)

LOCAL = Local(address="198.51.100.7", port=30_000, session_id=77, version=1)


def local(**changes: object) -> Local:
    return Local(**{"address": LOCAL.address, "port": LOCAL.port, "session_id": 77, "version": 1, **changes})  # type: ignore[arg-type]


def described(*lines: str, address: str = "192.0.2.10") -> bytes:
    head = ("v=0", "o=- 5 9 IN IP4 192.0.2.10", "s=-", *((f"c=IN IP4 {address}",) if address else ()), "t=0 0")
    return ("\r\n".join([*head, *lines]) + "\r\n").encode()


def audio(*lines: str, formats: str = "0", address: str = "192.0.2.10") -> bytes:
    return described(f"m=audio 20000 RTP/AVP {formats}", *lines, address=address)


def m_lines(body: bytes) -> list[str]:
    return [media.m_line for media in sdp.parse(body).media]


def direction(negotiated: Negotiated) -> str:
    description = sdp.parse(negotiated.sdp)
    return next(description.direction_of(media) for media in description.media if media.port)


def test_our_offer() -> None:
    assert offer(LOCAL) == (
        b"v=0\r\no=- 77 1 IN IP4 198.51.100.7\r\ns=-\r\nc=IN IP4 198.51.100.7\r\nt=0 0\r\n"
        b"m=audio 30000 RTP/AVP 0 8 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n"
        b"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
    )
    six = offer(local(address="2001:db8::7", codecs=("PCMA",), dtmf=False, direction="sendonly"))
    assert b"o=- 77 1 IN IP6 2001:db8::7\r\n" in six
    assert b"c=IN IP6 2001:db8::7\r\n" in six
    assert m_lines(six) == ["audio 30000 RTP/AVP 8"]
    assert six.endswith(b"a=sendonly\r\n")
    assert b"telephone-event" not in six


def test_an_answer_keeps_the_offers_order_and_numbers() -> None:
    got = answer(audio("a=rtpmap:97 pcma/8000", "a=rtpmap:96 telephone-event/8000", formats="97 0 96"), LOCAL)
    assert m_lines(got.sdp) == ["audio 30000 RTP/AVP 97 0 96"]
    assert (got.codec, got.send_payload_type, got.dtmf_payload_type) == ("PCMA", 97, 96)
    assert got.payload_types == {97: "PCMA", 0: "PCMU", 96: "telephone-event"}
    assert (got.remote, got.remote_rtcp) == (("192.0.2.10", 20_000), ("192.0.2.10", 20_001))
    assert (got.direction, got.held, got.remote_version, got.ptime) == ("sendrecv", False, 9, 20)


def test_static_types_need_no_rtpmap_and_an_rtpmap_wins() -> None:
    assert answer(audio(formats="18 8 0"), LOCAL).codec == "PCMA"
    swapped = answer(audio("a=rtpmap:0 PCMA/8000/1", formats="0"), LOCAL)
    assert (swapped.codec, swapped.send_payload_type) == ("PCMA", 0)
    with pytest.raises(NotAcceptable):
        answer(audio("a=rtpmap:0 L16/44100", formats="0"), LOCAL)


def test_only_our_codecs_and_each_once() -> None:
    got = answer(audio("a=rtpmap:97 PCMA/8000", formats="0 8 97"), local(codecs=("PCMA",)))
    assert m_lines(got.sdp) == ["audio 30000 RTP/AVP 8"]
    for formats in ("18", "9", "96", "x", "300"):
        with pytest.raises(NotAcceptable) as caught:
            answer(audio(formats=formats), LOCAL)
        assert caught.value.status == 488


@pytest.mark.parametrize(
    "lines",
    [
        ("a=rtpmap:101 telephone-event/48000",),
        (),
        ("a=rtpmap:101 telephone-event",),
        ("a=rtpmap:102 telephone-event/8000",),
    ],
)
def test_telephone_events_need_the_codecs_clock(lines: tuple[str, ...]) -> None:
    got = answer(audio(*lines, formats="0 101"), LOCAL)
    assert got.dtmf_payload_type == -1
    assert m_lines(got.sdp) == ["audio 30000 RTP/AVP 0"]


def test_of_several_telephone_events_the_matching_one() -> None:
    lines = ("a=rtpmap:101 telephone-event/48000", "a=rtpmap:102 Telephone-Event/8000/1")
    got = answer(audio(*lines, formats="101 0 102"), LOCAL)
    assert got.dtmf_payload_type == 102
    assert answer(audio(*lines, formats="101 0 102"), local(dtmf=False)).dtmf_payload_type == -1


def test_other_media_are_refused_in_their_place() -> None:
    got = answer(
        described(
            "m=video 4000 RTP/AVP 31 32",
            "m=audio 20002 RTP/SAVP 0",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc",
            "m=audio 0 RTP/AVP 0",
            "m=audio 20000 RTP/AVP 8",
            "m=audio 20004 RTP/AVP 0",
            "m=application 9 UDP/BFCP *",
        ),
        LOCAL,
    )
    assert m_lines(got.sdp) == [
        "video 0 RTP/AVP 31 32",
        "audio 0 RTP/SAVP 0",
        "audio 0 RTP/AVP 0",
        "audio 30000 RTP/AVP 8",
        "audio 0 RTP/AVP 0",
        "application 0 UDP/BFCP *",
    ]
    assert got.remote == ("192.0.2.10", 20_000)
    assert b"crypto" not in got.sdp


@pytest.mark.parametrize(
    "body",
    [
        described("m=audio 20000 RTP/SAVP 0"),
        described("m=audio 20000 UDP/TLS/RTP/SAVPF 0"),
        described("m=audio 20000 FOO/BAR 0"),
        described("m=video 20000 RTP/AVP 0"),
        described("m=audio 0 RTP/AVP 0"),
        described(),
        described("m=audio 20000 RTP/AVP 0", address=""),
        audio(address="224.0.0.1"),
        audio(address="255.255.255.255"),
        audio(address="999.1.1.1"),
        RICH,
    ],
)
def test_nothing_left_is_not_acceptable(body: bytes) -> None:
    with pytest.raises(NotAcceptable) as caught:
        answer(body, LOCAL)
    assert caught.value.status == 488


def test_a_malformed_offer_is_a_bad_request() -> None:
    with pytest.raises(MalformedSdp) as caught:
        answer(b"hello", LOCAL)
    assert caught.value.status == 400
    with pytest.raises(NotAcceptable):
        answer(b"", LOCAL)


@pytest.mark.parametrize(
    ("theirs", "ours", "expected", "held"),
    [
        ("", "sendrecv", "sendrecv", False),
        ("sendonly", "sendrecv", "recvonly", True),
        ("recvonly", "sendrecv", "sendonly", False),
        ("inactive", "sendrecv", "inactive", True),
        ("sendrecv", "sendonly", "sendonly", False),
        ("sendonly", "sendonly", "inactive", True),
        ("recvonly", "inactive", "inactive", False),
        ("sendrecv", "recvonly", "recvonly", False),
    ],
)
def test_directions(theirs: str, ours: str, expected: str, held: bool) -> None:
    line = (f"a={theirs}",) if theirs else ()
    got = answer(audio(*line), local(direction=ours))
    assert (got.direction, direction(got), got.held) == (expected, expected, held)
    asked = offer(local(direction=ours))
    concluded = conclude(asked, audio(*line), local(direction=ours))
    assert (concluded.direction, concluded.held) == (expected, held)


def test_direction_and_address_of_the_session_unless_the_medium_has_its_own() -> None:
    body = b"v=0\r\nc=IN IP4 192.0.2.1\r\na=inactive\r\nm=audio 20000 RTP/AVP 0\r\n"
    got = answer(body, LOCAL)
    assert (got.direction, got.remote, got.remote_version) == ("inactive", ("192.0.2.1", 20_000), -1)
    got = answer(body + b"c=IN IP6 2001:db8::5\r\na=sendrecv\r\n", LOCAL)
    assert (got.direction, got.remote) == ("sendrecv", ("2001:db8::5", 20_000))


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_the_hold_of_rfc_2543(address: str) -> None:
    kind = "IP6" if ":" in address else "IP4"
    got = answer(audio(f"c=IN {kind} {address}"), LOCAL)
    assert (got.held, got.remote, got.remote_rtcp) == (True, None, None)
    assert got.direction == direction(got) == "recvonly"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), 20), (("a=ptime:30",), 30), (("a=ptime:5",), 10), (("a=ptime:1000",), 60), (("a=ptime:25",), 20),
        (("a=ptime:60", "a=maxptime:40"), 40), (("a=maxptime:10",), 10), (("a=ptime:x",), 20), (("a=ptime:0",), 20),
    ],
)  # fmt: skip
def test_packet_time(lines: tuple[str, ...], expected: int) -> None:
    assert answer(audio(*lines), LOCAL).ptime == expected


def test_rtcp_goes_where_the_attribute_says_and_mux_is_refused() -> None:
    got = answer(
        audio("a=rtcp:30001 IN IP4 192.0.2.11", "a=rtcp-mux", "a=candidate:1 1 UDP 1 192.0.2.1 1 typ host"), LOCAL
    )
    assert got.remote_rtcp == ("192.0.2.11", 30_001)
    assert b"rtcp-mux" not in got.sdp
    assert b"candidate" not in got.sdp


def test_the_answers_times_are_the_offers() -> None:
    body = audio().replace(b"t=0 0", b"t=3149328700 0")
    assert b"t=3149328700 0\r\n" in answer(body, LOCAL).sdp


def test_conclude_sends_by_the_answers_numbers_and_hears_both() -> None:
    asked = offer(LOCAL)
    got = conclude(
        asked,
        audio("a=rtpmap:97 PCMA/8000", "a=rtpmap:100 telephone-event/8000", "a=ptime:40", formats="97 100"),
        LOCAL,
    )
    assert got.sdp == asked
    assert (got.codec, got.send_payload_type, got.dtmf_payload_type, got.ptime) == ("PCMA", 97, 100, 40)
    assert got.payload_types == {
        0: "PCMU", 8: "PCMA", 101: "telephone-event", 97: "PCMA", 100: "telephone-event",
    }  # fmt: skip
    assert conclude(asked, audio(formats="8 0"), LOCAL).codec == "PCMA"
    assert conclude(asked, audio(formats="0"), LOCAL).dtmf_payload_type == -1


@pytest.mark.parametrize(
    "body",
    [
        described("m=audio 0 RTP/AVP 0"),
        described(),
        described("m=audio 20000 RTP/SAVP 0"),
        audio(formats="18"),
        described("m=video 20000 RTP/AVP 0"),
        b"nonsense",
    ],
)
def test_answers_that_take_nothing(body: bytes) -> None:
    with pytest.raises(NotAcceptable):
        conclude(offer(LOCAL), body, LOCAL)


def test_a_new_offer_in_a_session_keeps_places_and_numbers() -> None:
    first = answer(
        described(
            "m=video 4000 RTP/AVP 31",
            "m=audio 20000 RTP/AVP 97 96",
            "a=rtpmap:97 PCMA/8000",
            "a=rtpmap:96 telephone-event/8000",
        ),
        LOCAL,
    )
    again = offer(local(direction="sendonly"), first.sdp)
    assert m_lines(again) == ["video 0 RTP/AVP 31", "audio 30000 RTP/AVP 97 0 96"]
    got = conclude(again, described("m=video 0 RTP/AVP 31", "m=audio 20000 RTP/AVP 97"), LOCAL)
    assert got.payload_types[96] == "telephone-event"
    crowded = answer(audio("a=rtpmap:101 PCMA/8000", formats="101"), LOCAL)
    assert m_lines(offer(local(codecs=("PCMA",)), crowded.sdp)) == ["audio 30000 RTP/AVP 101 102"]


def test_the_version_goes_up_only_with_a_change() -> None:
    first = offer(LOCAL)
    assert revise(first, offer(local(session_id=1, version=99))) is first
    held = revise(first, offer(local(direction="sendonly", session_id=1)))
    assert held == first.replace(b"o=- 77 1 ", b"o=- 77 2 ").replace(b"a=sendrecv", b"a=sendonly")
    back = revise(held, offer(LOCAL))
    assert sdp.parse(back).version == 3
    moved = revise(first, offer(local(address="198.51.100.8")))
    assert moved.startswith(b"v=0\r\no=- 77 2 IN IP4 198.51.100.8\r\n")
    assert revise(b"", first) == first


def test_both_ends_of_our_own_agree() -> None:
    asked = offer(LOCAL)
    theirs = answer(asked, local(address="192.0.2.9", port=40_000, codecs=("PCMA", "PCMU")))
    ours = conclude(asked, theirs.sdp, LOCAL)
    assert (ours.codec, ours.payload_types, ours.dtmf_payload_type) == (
        theirs.codec,
        theirs.payload_types,
        theirs.dtmf_payload_type,
    )
    assert (ours.remote, theirs.remote) == (("192.0.2.9", 40_000), ("198.51.100.7", 30_000))


PIECES = st.sampled_from(
    [
        "m=audio 20000 RTP/AVP 0 8 101", "m=audio 1 RTP/AVP 96", "m=video 5 RTP/AVP 31", "m=audio 0 RTP/AVP 0",
        "c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0", "c=IN IP6 ::1", "c=", "a=rtpmap:96 PCMU/8000", "a=rtpmap:x",
        "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16", "a=sendonly", "a=inactive", "a=ptime:", "a=maxptime:20",
        "a=rtcp:", "a=rtcp:9 IN IP4 1.2.3.4", "o=- 1 2 IN IP4 h", "o=", "t=", "a=", "b=x", "m=", "a=rtpmap:0 x/y/z/w",
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES | st.text(max_size=10), max_size=14))
def test_any_description_is_answered_or_refused(lines: list[str]) -> None:
    body = "\r\n".join(["v=0", *lines]).encode("utf-8", "replace")
    asked = offer(LOCAL)
    for negotiate in (lambda: answer(body, LOCAL), lambda: conclude(asked, body, LOCAL)):
        try:
            got = negotiate()
        except NotAcceptable:
            continue
        assert got.payload_types[got.send_payload_type] == got.codec or got.sdp == asked
        assert got.remote is not None or got.held
        if got.sdp != asked:
            offered, answered = sdp.parse(body).media, sdp.parse(got.sdp).media
            assert [media.kind for media in answered] == [media.kind for media in offered]
            assert [media.port for media in answered if media.port] == [LOCAL.port]


@settings(max_examples=200, deadline=None)
@given(st.tuples(st.integers(0, 300), st.integers(0, 5), st.binary(max_size=4)))
def test_mutated_offers(cut: tuple[int, int, bytes]) -> None:
    at, size, piece = cut
    body = OFFER[:at] + piece + OFFER[at + size :]
    try:
        got = answer(body, LOCAL)
    except NotAcceptable:
        return
    assert len(sdp.parse(got.sdp).media) == len(sdp.parse(body).media)


WIDE = ("opus", "G722", "PCMU")
OPUS_FMTP = "useinbandfec=1;maxplaybackrate=8000;sprop-maxcapturerate=8000"


def test_our_offer_of_every_codec_has_telephone_events_of_both_clocks() -> None:
    lines = offer(local(codecs=WIDE)).decode().split("\r\n")[5:]
    assert lines == [
        "m=audio 30000 RTP/AVP 111 9 0 101 102",
        "a=rtpmap:111 opus/48000/2",
        f"a=fmtp:111 {OPUS_FMTP}",
        "a=rtpmap:9 G722/8000",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=rtpmap:102 telephone-event/48000",
        "a=fmtp:102 0-16",
        "a=ptime:20",
        "a=sendrecv",
        "",
    ]
    assert m_lines(offer(local(codecs=("opus",)))) == ["audio 30000 RTP/AVP 111 101"]
    assert b"101 telephone-event/48000" in offer(local(codecs=("opus",)))


def test_g722_needs_no_rtpmap() -> None:
    got = answer(audio(formats="9 0"), local(codecs=WIDE))
    assert (got.codec, got.send_payload_type) == ("G722", 9)
    assert "a=rtpmap:9 G722/8000" in got.sdp.decode()
    with pytest.raises(NotAcceptable):
        answer(audio("a=rtpmap:9 G722/16000", formats="9"), local(codecs=WIDE))


@pytest.mark.parametrize("encoding", ["opus/48000/2", "OPUS/48000/2", "opus/48000"])
def test_opus_keeps_the_offers_number_and_its_own_clock_of_keys(encoding: str) -> None:
    lines = (f"a=rtpmap:96 {encoding}", "a=rtpmap:97 telephone-event/8000", "a=rtpmap:98 telephone-event/48000")
    got = answer(audio(*lines, formats="96 0 97 98"), local(codecs=WIDE))
    assert (got.codec, got.send_payload_type, got.dtmf_payload_type) == ("opus", 96, 98)
    assert got.payload_types == {96: "opus", 0: "PCMU", 98: "telephone-event/48000", 97: "telephone-event"}
    assert "a=rtpmap:96 opus/48000/2" in got.sdp.decode()
    assert f"a=fmtp:96 {OPUS_FMTP}" in got.sdp.decode()
    with pytest.raises(NotAcceptable):
        answer(audio(f"a=rtpmap:111 {encoding}", formats="111"), LOCAL)


def test_opus_takes_telephonys_events_where_the_peer_has_no_others() -> None:
    lines = ("a=rtpmap:96 opus/48000/2", "a=rtpmap:101 telephone-event/8000")
    got = answer(audio(*lines, formats="96 101"), local(codecs=("opus",)))
    assert got.dtmf_payload_type == 101
    assert got.payload_types[101] == "telephone-event"


def test_a_dynamic_number_without_an_rtpmap_is_nothing() -> None:
    with pytest.raises(NotAcceptable):
        answer(audio(formats="111"), local(codecs=WIDE))


def test_conclude_picks_the_events_of_the_codec_that_was_chosen() -> None:
    ours = offer(local(codecs=WIDE))
    plain = conclude(ours, audio("a=rtpmap:101 telephone-event/8000", formats="0 101"), local(codecs=WIDE))
    assert (plain.codec, plain.dtmf_payload_type) == ("PCMU", 101)
    lines = ("a=rtpmap:111 opus/48000/2", "a=rtpmap:102 telephone-event/48000")
    wide = conclude(ours, audio(*lines, formats="111 102"), local(codecs=WIDE))
    assert (wide.codec, wide.send_payload_type, wide.dtmf_payload_type) == ("opus", 111, 102)
    assert wide.payload_types == {
        111: "opus", 9: "G722", 0: "PCMU", 101: "telephone-event", 102: "telephone-event/48000",
    }  # fmt: skip


def test_a_new_offer_gives_no_number_away_that_is_in_use() -> None:
    """The peer called its keys 111: Opus gets another number."""
    got = answer(audio("a=rtpmap:111 telephone-event/8000", formats="0 111"), local(codecs=WIDE))
    again = sdp.parse(offer(local(codecs=WIDE), got.sdp)).media[0]
    mapped = again.rtpmap()
    assert mapped[111] == "telephone-event/8000"
    assert mapped[0] == "PCMU/8000"
    assert sorted(mapped.values()) == sorted(
        ["PCMU/8000", "opus/48000/2", "G722/8000", "telephone-event/8000", "telephone-event/48000"]
    )
    assert again.formats[0] == "0"
