"""`trunkline doctor sip` against servers that answer, stay silent, refuse, or see us elsewhere; `trunkline trunks`."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.sip.test_transport_tls import secure_nodes
from trunkline.cli import doctor_sip
from trunkline.settings import Settings, Sip, Trunk
from trunkline.settings.cluster import Cluster
from trunkline.sip import digest
from trunkline.voice.takeover_ways import BY_ADDRESS
from trunkline.voice.trunk_status import GATEWAY, REGISTRATION, Line, Snapshot

from .conftest import Command

Answer = Callable[[str, str], tuple[int, str, str]]
"""(method, whole request) -> status, more headers, body; status 0: silence."""
SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 0 RTP/AVP {}\r\n"
REALM = "carrier.example"


def header(request: str, name: str) -> str:
    found = re.search(rf"^{name}: *(.*)\r$", request, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""


class Server(threading.Thread):
    """A SIP server over UDP; `seen` is where it says that it sees us."""

    def __init__(self, answer: Answer, seen: str = "") -> None:
        super().__init__(daemon=True)
        self.heard: list[str] = []
        self._answer, self._seen = answer, seen
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.start()

    def run(self) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(65_536)
            except OSError:
                return
            request = data.decode()
            if request.startswith("END"):
                return
            self.heard.append(request)
            status, more, body = self._answer(request.split(" ", 1)[0], request)
            if status:
                via = f"{header(request, 'Via')};received={self._seen or source[0]}"
                via = re.sub(r";rport(?=;)", f";rport={source[1]}", via)
                lines = [
                    f"SIP/2.0 {status} Text", f"Via: {via}", f"From: {header(request, 'From')}",
                    f"To: {header(request, 'To')};tag=1", f"Call-ID: {header(request, 'Call-ID')}",
                    f"CSeq: {header(request, 'CSeq')}", *([more] if more else []), f"Content-Length: {len(body)}", "",
                ]  # fmt: skip
                self._socket.sendto(("\r\n".join(lines) + "\r\n" + body).encode(), source)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"END", ("127.0.0.1", self.port))
        self.join(5)
        self._socket.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def serve(answer: Answer, seen: str = "") -> Server:
        running.append(Server(answer, seen))
        return running[-1]

    yield serve
    for one in running:
        one.close()


def fine(_method: str, _request: str) -> tuple[int, str, str]:
    return 200, "", ""


def login(user: str, password: str) -> Answer:
    """A registrar with one user."""

    def answer(method: str, request: str) -> tuple[int, str, str]:
        if method != "REGISTER":
            return 200, "", ""
        value = header(request, "Authorization")
        if not value:
            return 401, f"WWW-Authenticate: {digest.challenge(REALM, 'n1', 'MD5')}", ""
        good = {"MD5": digest.ha1("MD5", user, REALM, password)}
        if digest.verify(digest.parse_credentials(value), good, "REGISTER", b""):
            return 200, "Contact: <sip:acme-1@127.0.0.1>;expires=300", ""
        return 403, "", ""

    return answer


@pytest.fixture
def ask(trunkline: Command, tmp_path: Path, free_port: int) -> Callable[..., tuple[int, list[dict[str, str]]]]:
    """Settings with one trunk; exit code and findings."""

    def ask(trunk: str, sip: str = "", name: str = "acme") -> tuple[int, list[dict[str, str]]]:
        text = f"[sip]\nenabled = true\nport = {free_port}\n{sip}\n[[trunks]]\nname = 'acme'\n{trunk}\n"
        (tmp_path / "trunkline.toml").write_text(text)
        ran = trunkline("doctor", "sip", name, "--json")
        return ran.code, json.loads(ran.out)

    return ask


def said(findings: list[dict[str, str]], verdict: str, *words: str) -> bool:
    return any(one["verdict"] == verdict and all(word in one["finding"] for word in words) for one in findings)


Ask = Callable[..., tuple[int, list[dict[str, str]]]]


def test_a_trunk_that_is_fine(ask: Ask, serve: Callable[..., Server], free_port: int) -> None:
    low = free_port + 1 + (free_port + 1) % 2
    media = f"[media]\nport_min = {low}\nport_max = {low + 2}\nlegs = 2"
    server = serve(lambda method, request: (200, "Content-Type: application/sdp", SDP.format("0 101")))
    code, found = ask(f"gateways = ['sip:127.0.0.1:{server.port}']\naddresses = ['127.0.0.1']", media)
    assert code == 0
    assert {one["verdict"] for one in found} == {"ok"}
    assert said(found, "ok", f"sip:127.0.0.1:{server.port} answers OPTIONS with 200 in")
    assert said(found, "ok", "has PCMU of our codecs")
    assert said(found, "ok", "the gateway sees us at 127.0.0.1, which is what we tell it")
    assert said(found, "ok", f"RTP ports {low} to {low + 3} on 127.0.0.1 can be had")
    assert server.heard[0].startswith(f"OPTIONS sip:127.0.0.1:{server.port} SIP/2.0\r\n")


def test_a_login_is_tried_and_nothing_is_registered(ask: Ask, serve: Callable[..., Server]) -> None:
    server = serve(login("us", "secret"))
    trunk = f"gateways = ['sip:127.0.0.1:{server.port}']\nregister = true\nusername = 'us'\npassword = "
    code, found = ask(trunk + "'secret'")
    assert code == 0
    assert said(found, "ok", "accepts the login of us; 1 registered at the moment")
    assert all(not header(one, "Contact") for one in server.heard if one.startswith("REGISTER"))
    code, found = ask(trunk + "'wrong'")
    assert code == 1
    assert said(found, "bad", "answers 403 Text: check username, password, register_user and domain")


def test_silence_and_sickness(ask: Ask, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.cli.sip_probe.ANSWER_S", 0.2)
    mute, sick = serve(lambda method, request: (0, "", "")), serve(lambda method, request: (503, "", ""))
    code, found = ask(
        f"gateways = ['sip:127.0.0.1:{mute.port}', 'sip:127.0.0.1:{sick.port}']\naddresses = ['127.0.0.1']"
    )
    assert code == 0
    assert said(found, "warn", f"sip:127.0.0.1:{mute.port} does not answer OPTIONS within 0.2 s: a firewall")
    assert said(found, "warn", f"sip:127.0.0.1:{sick.port} answers OPTIONS with 503", "cannot take calls now")


def test_what_is_not_there(ask: Ask, free_port: int) -> None:
    code, found = ask(
        f"gateways = ['sip:nowhere.invalid', 'sip:127.0.0.1:{free_port + 1};transport=tcp', "
        f"'sip:127.0.0.1:{free_port + 1};transport=tls']\naddresses = ['127.0.0.1']"
    )
    assert code == 1
    assert said(found, "bad", "gateway sip:nowhere.invalid cannot be resolved: Name or service not known; correct")
    assert said(found, "bad", "TCP 127.0.0.1", "no connection: Connection refused; check host, port and transport")
    assert said(found, "bad", "TLS 127.0.0.1", "no connection: ")


def test_our_address_from_the_outside(ask: Ask, serve: Callable[..., Server]) -> None:
    server = serve(fine, "203.0.113.7")
    trunk = f"gateways = ['sip:127.0.0.1:{server.port}']\naddresses = ['127.0.0.1']"
    code, found = ask(trunk)
    assert code == 1
    assert said(found, "bad", "the gateway sees us at 203.0.113.7, but SDP will name 127.0.0.1", "sip.advertised")
    code, found = ask(trunk, "advertised = '203.0.113.7'")
    assert code == 0
    assert said(found, "ok", "sees us at 203.0.113.7, which is what we tell it")
    code, found = ask(trunk, "advertised = 'sip.example.com'")
    assert said(found, "bad", "sees us at 203.0.113.7, but SDP will name 127.0.0.1")
    code, found = ask(f"gateways = ['sip:127.0.0.1:{serve(fine).port}']", "advertised = '10.0.0.5'")
    assert said(found, "ok", "sees us at 127.0.0.1, we tell it 10.0.0.5; from here it cannot be compared")
    code, found = ask(trunk + "\nadvertised = '198.51.100.1'")
    assert said(found, "bad", "sees us at 203.0.113.7, but SDP will name 198.51.100.1")


def test_no_codec_in_common(ask: Ask, serve: Callable[..., Server]) -> None:
    body = SDP.format("18 96") + "a=rtpmap:96 iLBC/8000\r\n"
    server = serve(lambda method, request: (200, "Content-Type: application/sdp", body))
    code, found = ask(f"gateways = ['sip:127.0.0.1:{server.port}']\naddresses = ['127.0.0.1']")
    assert code == 1
    assert said(found, "bad", "has none of our codecs", "G729, ILBC", "add one to codecs")


def test_settings_that_keep_calls_away(ask: Ask, serve: Callable[..., Server]) -> None:
    server = serve(fine)
    code, found = ask(f"gateways = ['sip:127.0.0.1:{server.port}']\ntls_names = ['a.example']")
    assert code == 1
    assert said(found, "bad", "tls_names are never seen: set sip.tls_port and sip.tls_client_ca")
    code, found = ask(f"gateways = ['sip:127.0.0.1:{server.port}']\naddresses = ['192.0.2.1']")
    assert said(found, "warn", "127.0.0.1 is a gateway but not in addresses")
    behind = f"gateways = ['sip:127.0.0.1:{server.port}']\naddresses = ['192.0.2.1']"
    code, found = ask(behind, "edges = ['127.0.0.1']")
    assert not said(found, "warn", "is a gateway but not in addresses"), "it is the edge's"
    code, found = ask(f"gateways = ['sip:127.0.0.1:{server.port}']\nsrtp = 'required'")
    assert code == 1
    assert said(found, "bad", f'srtp = "required" needs TLS, which sip:127.0.0.1:{server.port} does not name')
    code, found = ask(f"gateways = ['sip:127.0.0.1:{server.port}']\nsrtp = 'optional'")
    assert said(
        found, "warn", f'srtp = "optional": calls to sip:127.0.0.1:{server.port} go without it; keys are for TLS'
    )
    code, found = ask("")
    assert said(found, "warn", "takes no calls")
    assert said(found, "warn", "makes no calls")


def test_ports_that_others_have(ask: Ask, free_port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", free_port))
        code, found = ask("simulated = true")
        assert code == 1
        assert said(found, "bad", f"port {free_port} cannot be listened on: another program has it")
    taken = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    low = free_port + 2
    for port, one in zip((low, low + 3), taken, strict=True):
        one.bind(("127.0.0.1", port))
    code, found = ask("simulated = true", f"[media]\nport_min = {low}\nport_max = {low + 2}\nlegs = 2")
    assert code == 1
    assert said(found, "bad", "2 of 2 tried cannot be had", "move media.port_min and port_max")
    taken.pop().close()
    code, found = ask("simulated = true", f"[media]\nport_min = {low}\nport_max = {low + 2}\nlegs = 2")
    assert code == 0
    assert said(found, "warn", "1 of 2 tried cannot be had")
    taken.pop().close()


def test_an_address_that_is_not_ours(ask: Ask) -> None:
    code, found = ask("simulated = true", "host = '203.0.113.10'")
    assert code == 1
    assert said(found, "bad", "RTP ports", "Cannot assign requested address; give media.host or sip.host an address")


def test_certificates_are_read(ask: Ask, tmp_path: Path, free_port: int) -> None:
    missing = tmp_path / "missing.pem"
    listener = f"tls_port = {free_port + 2}\ntls_certificate = '{missing}'"
    for sip, setting in ((listener, "sip.tls_certificate"), (f"tls_ca = '{missing}'", "sip.tls_ca")):
        code, found = ask("addresses = ['127.0.0.1']\ngateways = ['sip:127.0.0.1']", sip)
        assert code == 1
        assert said(found, "bad", str(missing), "cannot be used: No such file or directory", f"see {setting}")
    with socket.create_server(("127.0.0.1", free_port + 2)):
        code, found = ask("simulated = true", listener)
        assert said(found, "bad", f"port {free_port + 2} cannot be listened on: another program has it; free it")


def test_a_trunk_that_is_not_there(trunkline: Command, tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_text("[sip]\nenabled = true\n[[trunks]]\nname = 'acme'\n")
    ran = trunkline("doctor", "sip", "amce")
    assert ran.code == 1
    assert ran.err.strip().endswith("there is no trunk amce in the settings; there are: acme")


def test_beside_the_development_server(trunkline: Command, data: Path) -> None:
    assert "bad\tsip\tsip.enabled is false" in trunkline("doctor", "sip").out
    data.mkdir(parents=True, exist_ok=True)
    snapshot = Snapshot(int(time.time() * 1000), [Line("simulated", GATEWAY, "sip:127.0.0.1:5070", True, "up", 0)])
    (data / "trunks.json").write_bytes(msgspec.json.encode(snapshot))
    ran = trunkline("doctor", "sip")
    assert ran.code == 0
    assert ran.out.splitlines()[1].startswith("ok\tsip\t`trunkline dev` runs, with simulated phones")


def test_how_trunks_stand(trunkline: Command, data: Path) -> None:
    ran = trunkline("trunks")
    assert ran.code == 1
    assert "no server with calls runs" in ran.err
    now = int(time.time() * 1000)
    lines = [
        Line("acme", GATEWAY, "sip:acme.example", True, "up", now),
        Line("acme", REGISTRATION, "sip:u@acme.example at sip:acme.example", False, "refused", now, "403 Forbidden"),
    ]
    data.mkdir(parents=True, exist_ok=True)
    (data / "trunks.json").write_bytes(msgspec.json.encode(Snapshot(now, lines)))
    ran = trunkline("trunks")
    assert ran.code == 1
    assert "acme\tgateway\tsip:acme.example\tup\t" in ran.out
    assert ran.out.splitlines()[2].endswith("\t403 Forbidden")
    assert json.loads(trunkline("trunks", "--json").out)[0]["up"] is True
    (data / "trunks.json").write_bytes(msgspec.json.encode(Snapshot(now - 600_000, lines)))
    assert "no server with calls runs" in trunkline("trunks").err


async def test_tls_is_looked_into(ask: Ask, tmp_path: Path) -> None:
    async with secure_nodes(tmp_path) as nodes:
        server = await nodes()
        trunk = f"gateways = ['sip:127.0.0.1:{server.tls_port};transport=tls']\naddresses = ['127.0.0.1']"
        code, found = await asyncio.to_thread(ask, trunk, f"tls_ca = '{nodes.authority.path}'")
        assert code == 0
        assert said(found, "ok", "answers OPTIONS with 200")
        code, found = await asyncio.to_thread(ask, trunk)
        assert code == 1
        assert said(found, "bad", "its certificate is not trusted", "give its authority in sip.tls_ca")
        plain = f"gateways = ['sip:127.0.0.1:{server.port};transport=tls']\naddresses = ['127.0.0.1']"
        code, found = await asyncio.to_thread(ask, plain)
        assert code == 1
        assert said(found, "bad", "no TLS there") or said(found, "bad", "no connection")


def test_of_several_nodes_it_says_whose_calls_another_takes_over() -> None:
    trunk = Trunk(name="carrier", gateways=("sip:10.0.0.5",))
    alone = Settings(sip=Sip(enabled=True), trunks=(trunk,))
    assert list(doctor_sip._takeovers(alone, [trunk])) == []
    several = msgspec.structs.replace(alone, cluster=Cluster(enabled=True))
    findings = list(doctor_sip._takeovers(several, [trunk]))
    assert [one.what.partition(":")[0] for one in findings] == ["carrier", "phones"]
    assert findings[0].text == BY_ADDRESS
