"""Trust, names in certificates, files that change, and sessions without sockets."""

import os
import ssl
from pathlib import Path

import pytest

from tests.certificates import Authority
from trunkline.sip.tls import Certificate, TlsConfig, TlsContexts, TlsError, TlsSession, certificate_of


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def joined(client: TlsSession, server: TlsSession) -> None:
    """Let both agree."""
    client.start()
    for _ in range(10):
        if data := client.take():
            server.receive(data)
        if data := server.take():
            client.receive(data)
    assert client.ready
    assert server.ready


def contexts(**config: object) -> TlsContexts:
    texts = {name: value if name == "verify" else str(value) for name, value in config.items()}
    made = TlsContexts(TlsConfig(**texts))  # type: ignore[arg-type]
    made.load()
    return made


def pair(authority: Authority, **client: object) -> tuple[TlsSession, TlsSession]:
    files = authority.issue("server", ["sip.example.com"])
    server = contexts(certificate=files.chain, key=files.key, client_ca=authority.path)
    assert server.server is not None
    mine = contexts(ca=authority.path, **client)
    return TlsSession(mine.client, server=False, name="sip.example.com"), TlsSession(server.server, server=True)


def test_two_agree_and_talk(authority: Authority) -> None:
    client, server = pair(authority)
    joined(client, server)
    assert client.peer == Certificate(("sip.example.com", "127.0.0.1"))
    assert server.peer is None
    client.seal(b"INVITE" * 20_000)
    assert server.receive(client.take()) == b"INVITE" * 20_000
    server.seal(b"200")
    assert client.receive(server.take()) == b"200"
    assert not client.closed


def test_a_client_shows_who_it_is_when_asked(authority: Authority) -> None:
    mine = authority.issue("client", ["pbx.example.net"], uris=["sip:office.example.net"], addresses=())
    client, server = pair(authority, certificate=mine.chain, key=mine.key)
    joined(client, server)
    assert server.peer == Certificate(("pbx.example.net", "office.example.net"))


def test_a_certificate_of_another_authority_is_refused_on_both_sides(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other")
    mine = other.issue("client", ["pbx.example.net"])
    client, server = pair(authority, certificate=mine.chain, key=mine.key)
    client.start()
    server.receive(client.take())
    client.receive(server.take())
    with pytest.raises(ssl.SSLCertVerificationError):
        server.receive(client.take())

    files = other.issue("server", ["sip.example.com"])
    theirs = contexts(certificate=files.chain, key=files.key)
    assert theirs.server is not None
    client = TlsSession(contexts(ca=authority.path).client, server=False, name="sip.example.com")
    server = TlsSession(theirs.server, server=True)
    client.start()
    server.receive(client.take())
    with pytest.raises(ssl.SSLCertVerificationError):
        client.receive(server.take())


def test_who_does_not_verify_takes_anybody(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files = Authority(tmp_path / "other").issue("server")
    theirs = contexts(certificate=files.chain, key=files.key)
    assert theirs.server is not None
    client = TlsSession(contexts(verify=False).client, server=False, name="sip.example.com")
    joined(client, TlsSession(theirs.server, server=True))
    assert client.peer is None


def test_nothing_before_tls_1_2(authority: Authority) -> None:
    client, server = pair(authority)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    client = TlsSession(old, server=False)
    client.start()
    hello = client.take()
    with pytest.raises(ssl.SSLError, match="UNSUPPORTED_PROTOCOL"):
        server.receive(hello)


@pytest.mark.parametrize(
    "data", [b"INVITE sip:x SIP/2.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\x80" * 50]
)
def test_garbage_ends_a_session(authority: Authority, data: bytes) -> None:
    _, server = pair(authority)
    with pytest.raises(ssl.SSLError):
        server.receive(data)


def test_a_closed_session_says_so(authority: Authority) -> None:
    client, server = pair(authority)
    joined(client, server)
    with pytest.raises(ssl.SSLWantReadError):
        client._object.unwrap()
    assert server.receive(client.take()) == b""
    assert server.closed


@pytest.mark.parametrize(
    ("names", "host", "is_it"),
    [
        (("sip.example.com",), "sip.example.com", True),
        (("sip.example.com",), "SIP.example.com.", True),
        (("sip.example.com",), "example.com", False),
        (("*.example.com",), "sip.example.com", True),
        (("*.example.com",), "a.sip.example.com", False),
        (("*.example.com",), "example.com", False),
        (("*.com",), "com", False),
        (("127.0.0.1",), "127.0.0.1", True),
        (("*.0.0.1",), "127.0.0.1", False),
        (("::1",), "[0:0:0:0:0:0:0:1]", True),
        ((), "sip.example.com", False),
    ],
)
def test_whose_certificate_it_is(names: tuple[str, ...], host: str, is_it: bool) -> None:
    assert Certificate(names).names_host(host) is is_it


def test_names_of_a_certificate() -> None:
    """RFC 5922 section 7.1: URIs of domains and DNS names; the common name only without any."""
    subject = ((("organizationName", "x"),), (("commonName", "Old.Example"),))
    others = (("DNS", "A.example"), ("URI", "sip:B.example"), ("URI", "sip:bob@c.example"), ("URI", "http://d.example"))
    assert certificate_of({"subject": subject, "subjectAltName": others}) == Certificate(("a.example", "b.example"))
    assert certificate_of({"subject": subject}) == Certificate(("old.example",))
    assert certificate_of({}) is None
    assert certificate_of(None) is None


def test_files_that_cannot_be_used_are_one_line(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue("server")
    other = authority.issue("other")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("nonsense")
    for config, words in (
        ({"certificate": tmp_path / "none.pem", "key": files.key}, "No such file or directory; see sip.tls_cert"),
        ({"certificate": garbage, "key": files.key}, "garbage.pem"),
        ({"certificate": files.chain, "key": other.key}, "key values mismatch"),
        ({"certificate": files.chain, "key": files.key, "client_ca": garbage}, "see sip.tls_client_ca"),
        ({"ca": tmp_path / "none.pem"}, "see sip.tls_ca"),
    ):
        with pytest.raises(TlsError) as caught:
            contexts(**config)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_changed_files_are_read_again_and_bad_ones_wait(authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    files = authority.issue("server", ["old.example"])
    made = contexts(certificate=files.chain, key=files.key)
    first = made.server
    assert not made.refresh()
    authority.issue("server", ["new.example"])
    assert made.refresh()
    second = made.server
    assert second is not first
    files.chain.write_text("half a cert")
    assert not made.refresh()
    assert "what was read before is used" in caplog.text
    assert made.server is second
    caplog.clear()
    assert not made.refresh()
    assert not caplog.records, "said once"
    authority.issue("server", ["newest.example"])
    assert made.refresh()
    os.unlink(files.key)
    assert not made.refresh()
    assert made.server is not None
