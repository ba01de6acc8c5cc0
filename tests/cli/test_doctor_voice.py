"""The doctor on calls."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.cli import doctor_voice
from trunkline.media.native import libopus
from trunkline.media.native.coding import NoCodec
from trunkline.sip.message import Request, parse

from .conftest import Command


@pytest.fixture
def gateway() -> Iterator[tuple[int, list[bytes]]]:
    """Answers one OPTIONS on a UDP port."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(10)

        def answer() -> None:
            data, source = peer.recvfrom(4096)
            heard.append(data)
            peer.sendto(b"SIP/2.0 200 OK\r\n\r\n", source)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield peer.getsockname()[1], heard
        thread.join(10)


def settings(folder: Path, *trunks: str, **sections: str) -> None:
    text = "[sip]\nenabled = true\n" + "\n".join(f"[{name}]\n{body}" for name, body in sections.items())
    (folder / "trunkline.toml").write_text(text + "\n" + "\n".join(f"[[trunks]]\n{trunk}" for trunk in trunks))


def test_nothing_is_said_of_calls_where_there_are_none(trunkline: Command, account: str) -> None:
    ran = trunkline("doctor")
    assert "RTP" not in ran.out
    assert "calls under way" not in ran.out


def test_a_gateway_is_asked(trunkline: Command, account: str, tmp_path: Path, gateway: tuple[int, list[bytes]]) -> None:
    port, heard = gateway
    uri = f"sip:me@127.0.0.1:{port};transport=udp"
    settings(tmp_path, f'name = "acme"\ngateways = ["{uri}"]\naddresses = ["127.0.0.1"]')
    ran = trunkline("doctor")
    assert f"ok\tacme\t{uri} answers 200 in " in ran.out
    assert "calls under way: dialog, position\tMemoryStore" in ran.out
    assert "recordings under way\trecorder\tspool, unsynced\tprocess" in ran.out
    assert "prompts\tcache\tfiles, unsynced\tprocess" in ran.out
    request = parse(heard[0])
    assert isinstance(request, Request)
    assert (request.method, request.uri) == ("OPTIONS", f"sip:me@127.0.0.1:{port}")


def test_what_keeps_calls_away(
    trunkline: Command, account: str, tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_voice, "ANSWER_S", 0.05)
    ephemeral = tmp_path / "range"
    ephemeral.write_text("28000\t60999\n")
    monkeypatch.setattr(doctor_voice, "EPHEMERAL", ephemeral)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        quiet = f"sip:127.0.0.1:{silent.getsockname()[1]}"
        settings(
            tmp_path, 'name = "lonely"', f'name = "dead"\ngateways = ["sip:127.0.0.1:{free_port};transport=tcp"]',
            f'name = "quiet"\ngateways = ["{quiet}"]',
        )  # fmt: skip
        ran = trunkline("doctor")
    assert ran.code == 1
    assert "warn\tlonely\ttakes no calls" in ran.out
    assert "warn\tlonely\tmakes no calls" in ran.out
    assert f"bad\tdead\tsip:127.0.0.1:{free_port};transport=tcp cannot be reached: Connection refused" in ran.out
    assert f"warn\tquiet\t{quiet} does not answer OPTIONS" in ran.out
    assert "warn\tmedia\tRTP ports 20000 to 29998 lie in the system's own range 28000 to 60999" in ran.out


def test_no_address(trunkline: Command, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trunkline.toml").write_text('[sip]\nenabled = true\nhost = "0.0.0.0"\n')
    monkeypatch.setenv("PATH", "/nowhere")
    ran = trunkline("doctor")
    assert "ok\tsimulated\tsimulated phones: no carrier" in ran.out, "the development profile's trunk"
    assert "warn\tsip\thost is 0.0.0.0 and advertised is empty" in ran.out


def test_no_trunks(trunkline: Command, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_MASTER_KEY", "0" * 64)
    (tmp_path / "trunkline.toml").write_text(
        'profile = "production"\n[sip]\nenabled = true\n[[connectors]]\nkind = "http"\nname = "web"\n'
        'url = "http://127.0.0.1:9/"\ncallback_token = "x"\n'
    )
    assert "warn\ttrunks\tno [[trunks]]" in trunkline("doctor").out


def test_the_files_that_rtp_ports_take_are_counted(
    trunkline: Command, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (1024, 30_000))
    settings(tmp_path, media="legs = 1000")
    assert "ok\tlimits\t" in trunkline("doctor").out
    settings(tmp_path, media="legs = 4900\nport_min = 10000\nport_max = 60000")
    assert "warn\tlimits\t1024 open files (at most 30000), 39456 needed at full load" in trunkline("doctor").out


def test_opus_needs_its_library(
    trunkline: Command, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings(tmp_path, 'name = "acme"\naddresses = ["127.0.0.1"]')
    assert "\topus\t" not in trunkline("doctor").out
    settings(tmp_path, 'name = "acme"\naddresses = ["127.0.0.1"]\ncodecs = ["opus", "PCMU"]')
    assert "ok\topus\tlibopus is there" in trunkline("doctor").out

    def missing() -> None:
        raise NoCodec("Opus: libopus is not installed")

    monkeypatch.setattr(libopus, "library", missing)
    ran = trunkline("doctor")
    assert "bad\topus\tOpus: libopus is not installed; until then take opus out of codecs" in ran.out
    assert ran.code == 1


@pytest.mark.parametrize(
    ("trunk", "voice", "line"),
    [
        ('name = "acme"\nsimulated = true', "", "ok\temergency calls\trefused"),
        ('name = "acme"\ngateways = ["sip:127.0.0.1:9"]', "", "warn\temergency calls\trefused"),
        (
            'name = "acme"\ngateways = ["sip:127.0.0.1:9"]',
            'emergency_trunk = "acme"',
            "ok\temergency calls\tby trunk acme",
        ),
    ],
)
def test_it_says_what_becomes_of_emergency_calls(
    trunkline: Command, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trunk: str, voice: str, line: str
) -> None:
    monkeypatch.setattr(doctor_voice, "ANSWER_S", 0.05)
    settings(tmp_path, trunk, voice=voice)
    assert line in trunkline("doctor").out


def test_a_list_of_numbers_that_cannot_be_read_is_told_in_one_line(
    trunkline: Command, account: str, tmp_path: Path
) -> None:
    risks = tmp_path / "risks.txt"
    risks.write_text("+1900 special\n+1976 deer\n")
    settings(tmp_path, voice=f'high_risk_file = "{risks}"')
    line = f"voice.high_risk_file: {risks}: line 2: '+1976 deer' is no `+prefix special|tollfraud|low [digits]`"
    assert f"bad\thigh-risk numbers\t{line}" in trunkline("doctor").out
    ran = trunkline("serve")
    assert ran.code != 0
    assert ran.err.strip().endswith(line)
    assert "Traceback" not in ran.err
