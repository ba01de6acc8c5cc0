"""Session descriptions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.samples import OFFER
from trunkline.sip import sdp
from trunkline.sip.sdp import MalformedSdp, SessionDescription

RICH = b"""v=0
o=mozilla 4962303333179871723 1 IN IP6 2001:db8::1
s=call
i=a title
c=IN IP6 2001:db8::1
b=AS:84
t=0 0
a=group:BUNDLE 0 1
a=sendonly
z=unknown kind
m=audio 54609/2 UDP/TLS/RTP/SAVPF 109 9 0
c=IN IP4 224.2.1.1/127/3
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=fmtp:109 maxplaybackrate=48000;stereo=1
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc
a=rtcp-mux
a=rtcp:54611 IN IP4 192.0.2.77
a=candidate:0 1 UDP 2122252543 192.0.2.3 54609 typ host
a=candidate:1 1 UDP 1686052863 192.0.2.4 54609 typ srflx
a=inactive
a=ptime:30.5
m=application 0 DTLS/SCTP 5000
""".replace(b"\n", b"\r\n")


def test_nothing_of_a_description_is_lost() -> None:
    assert sdp.parse(RICH).encode() == RICH
    assert sdp.parse(OFFER).encode() == OFFER


def test_what_offer_answer_asks_for() -> None:
    description = sdp.parse(RICH)
    audio, data = description.media
    assert (description.session_id, description.version) == ("4962303333179871723", 1)
    assert (audio.kind, audio.port, audio.port_count, audio.protocol) == ("audio", 54609, 2, "UDP/TLS/RTP/SAVPF")
    assert audio.formats == ("109", "9", "0")
    assert audio.rtpmap() == {109: "opus/48000/2", 9: "G722/8000/1"}
    assert audio.fmtp(109) == "maxplaybackrate=48000;stereo=1"
    assert audio.fmtp(9) == ""
    assert audio.attribute("rtcp-mux") == ""
    assert audio.attribute("ptim") is None
    assert len(audio.attributes("candidate")) == 2
    assert (description.direction_of(audio), description.direction_of(data)) == ("inactive", "sendonly")
    assert (description.address_of(audio), description.address_of(data)) == ("224.2.1.1", "2001:db8::1")
    assert sdp.rtcp_address(audio, "192.0.2.1") == ("192.0.2.77", 54611)
    assert sdp.milliseconds(audio.attribute("ptime")) == 30
    assert (data.kind, data.port, data.formats) == ("application", 0, ("5000",))


def test_direction_is_both_ways_by_default() -> None:
    description = sdp.parse(OFFER)
    assert description.direction_of(description.media[0]) == "sendrecv"
    assert sdp.rtcp_address(description.media[0], "192.0.2.10") == ("192.0.2.10", 20001)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"a=rtcp:5", ("h", 5)),
        (b"a=rtcp:0", ("h", 10_001)),
        (b"a=rtcp:x", ("h", 10_001)),
        (b"a=rtcp:", ("h", 10_001)),
        (b"a=rtcp:7 IN IP6 ::1", ("::1", 7)),
        (b"a=rtcp:7 IN IP9 ::1", ("h", 7)),
    ],
)
def test_rtcp_attribute(lines: bytes, expected: tuple[str, int]) -> None:
    (media,) = sdp.parse(b"v=0\r\nm=audio 10000 RTP/AVP 0\r\n" + lines).media
    assert sdp.rtcp_address(media, "h") == expected


def test_line_ends_and_gaps_that_occur() -> None:
    loose = sdp.parse(OFFER.replace(b"\r\n", b"\n") + b"\n\n")
    assert loose.encode() == OFFER
    bare = sdp.parse(b"v=0\nm=audio 1 RTP/AVP 0")
    assert (bare.version, bare.session_id, bare.address) == (-1, "", "")
    assert sdp.parse("v=0\r\ns=é".encode("latin-1")).value("s") == "é"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"o=- 1 1 IN IP4 h\r\nv=0",
        b"v=1",
        b"v=0\r\nnonsense",
        b"v=0\r\n\r\ns=-",
        b"v=0\r\nm=audio 1 RTP/AVP",
        b"v=0\r\nm=audio x RTP/AVP 0",
        b"v=0\r\nm=audio 65536 RTP/AVP 0",
        b"v=0\r\nm=audio 1/0 RTP/AVP 0",
        b"v=0\r\nm=audio -1 RTP/AVP 0",
        b"v=0" + b"\r\na=x" * sdp.MAX_LINES,
        b"v=0" + b"\r\nm=audio 1 RTP/AVP 0" * (sdp.MAX_MEDIA + 1),
        b"v=0\r\nm=audio 1 RTP/AVP" + b" 0" * (sdp.MAX_FORMATS + 1),
        b"v=0\r\ns=" + b"x" * sdp.MAX_BYTES,
    ],
)
def test_malformed_and_oversize(body: bytes) -> None:
    with pytest.raises(MalformedSdp) as caught:
        sdp.parse(body)
    assert caught.value.status == 400


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([RICH, OFFER]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 5), st.binary(max_size=4)), min_size=1, max_size=6),
)
def test_mutated_descriptions(data: bytes, cuts: list[tuple[int, int, bytes]]) -> None:
    for at, size, piece in cuts:
        at %= len(data) + 1
        data = data[:at] + piece + data[at + size :]
    try:
        description = sdp.parse(data)
    except MalformedSdp:
        return
    assert isinstance(description, SessionDescription)
    again = sdp.parse(description.encode())
    assert again == description
    for media in description.media:
        _ = media.rtpmap(), description.direction_of(media), sdp.rtcp_address(media, description.address_of(media))
