"""Messages and descriptions that several tests use."""

OFFER = (
    b"v=0\r\n"
    b"o=- 3890001 3890002 IN IP4 192.0.2.10\r\n"
    b"s=-\r\n"
    b"c=IN IP4 192.0.2.10\r\n"
    b"t=0 0\r\n"
    b"m=audio 20000 RTP/AVP 0 8 101\r\n"
    b"a=rtpmap:0 PCMU/8000\r\n"
    b"a=rtpmap:8 PCMA/8000\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\n"
    b"a=fmtp:101 0-16\r\n"
    b"a=ptime:20\r\n"
)

INVITE = (
    b"INVITE sip:+15551230002@198.51.100.7:5060;transport=udp SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK776asdhds;rport\r\n"
    b"Max-Forwards: 70\r\n"
    b'From: "Alice Example" <sip:+15551230001@192.0.2.10;user=phone>;tag=1928301774\r\n'
    b"To: <sip:+15551230002@198.51.100.7:5060>\r\n"
    b"Call-ID: a84b4c76e66710@pc33.example.com\r\n"
    b"CSeq: 314159 INVITE\r\n"
    b"Contact: <sip:+15551230001@192.0.2.10:5060;transport=udp>\r\n"
    b"Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, UPDATE, INFO\r\n"
    b"Supported: replaces, timer\r\n"
    b"User-Agent: Carrier SBC 7.2\r\n"
    b"P-Asserted-Identity: <sip:+15551230001@192.0.2.10>\r\n"
    b"Content-Type: application/sdp\r\n"
    b"Content-Length: " + str(len(OFFER)).encode() + b"\r\n"
    b"\r\n" + OFFER
)


def invite(*lines: str, body: bytes = b"", drop: tuple[str, ...] = ()) -> bytes:
    """The INVITE above without its body, some headers dropped, these lines added after the others."""
    head = INVITE.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    dropped = tuple(name.lower() + ":" for name in (*drop, "Content-Length", "Content-Type"))
    kept = [line for line in head if not line.lower().startswith(dropped)]
    return ("\r\n".join([*kept, *lines]) + "\r\n\r\n").encode() + body
