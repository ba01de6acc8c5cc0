"""Every transport with every codec, with SRTP and without: two phones (baresip) that speak it call each other through
the whole server, one offers and the other answers, and each hears the other."""

import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.certificates import Authority
from tests.interop.baresip import Baresip, sound, write_wav
from tests.interop.switch import HOST, NUMBER, Switch
from tests.ports import free_port

CODECS = {"PCMU": ("PCMU/8000/1", 8000, 1), "PCMA": ("PCMA/8000/1", 8000, 1), "G722": ("G722/16000/1", 16_000, 1),
          "opus": ("opus/48000/2", 48_000, 2)}  # fmt: skip
"""What baresip calls each, and the file that it plays: its rate and its channels."""
TRANSPORTS = ("UDP", "TCP", "TLS")
SUITE = b"AES_CM_128_HMAC_SHA1_80"
SAYS = 1, 4
"""Seeds of what the caller and the callee say, from the beginning of the call to its end."""
PART = 5600, 9600
"""Samples: what each has to have heard of that."""
SAYS_S = 20
QUICK = {("UDP", "PCMU", False), ("TCP", "PCMA", False), ("TLS", "G722", True), ("TLS", "opus", True),
         ("UDP", "opus", True), ("TCP", "G722", False)}  # fmt: skip
"""Each transport, each codec, and SRTP, at least once; the others are slow tests."""


class Cell(NamedTuple):
    """What both legs of a call have."""

    transport: str
    codec: str
    srtp: bool

    @property
    def way(self) -> str:
        return f"{TRANSPORTS.index(self.transport)}{int(self.srtp)}"

    @property
    def digits(self) -> str:
        return f"{self.way}{list(CODECS).index(self.codec)}7"

    def address(self, beginning: str, port: int) -> str:
        """The user of this cell alone, at a phone."""
        return f"sip:{beginning}{self.digits}@{HOST}:{port + (self.transport == 'TLS')}"

    def account(self, beginning: str, port: int, source: str) -> str:
        """Its line of baresip's file."""
        secured = ";mediaenc=srtp-mand" if self.srtp else ""
        return (
            f"<{self.address(beginning, port)};transport={self.transport.lower()}>;regint=0;answermode=auto"
            f";audio_codecs={CODECS[self.codec][0]};audio_source=aufile,{source}{secured}\n"
        )


CELLS = [Cell(*each) for each in itertools.product(TRANSPORTS, CODECS, (False, True))]
FROM, TO = "+1202555", "+1202556"


class Pair(NamedTuple):
    """The server and the two phones, each with a user for every cell."""

    switch: Switch
    tls: int
    port: int
    """The caller's own."""
    caller: Baresip
    callee: Baresip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("matrix")
    files = Authority(folder).issue("both")
    both = folder / "both-in-one.pem"
    both.write_bytes(files.chain.read_bytes() + files.key.read_bytes())
    ports, tls = (free_port(span=2), free_port(span=2)), free_port()
    trunks: list[dict[str, Any]] = [
        {"name": "near", "addresses": [f"{HOST}/32"], "prefixes": [], "codecs": list(CODECS)},
    ]
    for cell in (one for one in CELLS if one.codec == "PCMU"):
        uri = f"sip:{HOST}:{ports[1] + (cell.transport == 'TLS')};transport={cell.transport.lower()}"
        trunks.append({
            "name": f"way{cell.way}", "gateways": [uri], "prefixes": [f"{TO}{cell.way}"], "codecs": list(CODECS),
            "srtp": "required" if cell.srtp else "off",
        })  # fmt: skip
    sip = {"srtp_without_tls": True, "tls_port": tls, "tls_certificate": str(both), "tls_verify": False}
    running = Switch(tmp_path_factory.mktemp("switch"), trunks, sip=sip)
    phones: list[Baresip] = []
    try:
        running.start()
        for beginning, port, seed in zip((FROM, TO), ports, SAYS, strict=True):
            sources = {
                name: str(write_wav(folder / f"{seed}-{name}.wav", sound(SAYS_S, seed, rate), rate, channels))
                for name, (_, rate, channels) in CODECS.items()
            }
            lines = "".join(cell.account(beginning, port, sources[cell.codec]) for cell in CELLS)
            phones.append(Baresip(
                folder / f"phone{seed}", folder / f"{seed}-PCMU.wav", port=port, accounts=lines,
                certificate=str(both), modules=("g722", "opus", "srtp"),
            ))  # fmt: skip
        yield Pair(running, tls, ports[0], *phones)
        assert not running.errors()
    finally:
        for phone in phones:
            phone.close()
        running.close()


def a_call(pair: Pair, cell: Cell) -> None:
    """See the module."""
    switch, caller, callee, to = pair.switch, pair.caller, pair.callee, f"{TO}{cell.digits}"
    for phone in (caller, callee):
        phone.forgets()
        phone.events.clear()
    switch.answers(f"<Dial action='/dialled'>{to}</Dial>", dialled="<Hangup/>")
    port = pair.tls if cell.transport == "TLS" else switch.sip_port
    caller.does("uafind", cell.address(FROM, pair.port))
    caller.does("dial", f"sip:{NUMBER}@{HOST}:{port};transport={cell.transport.lower()}")
    first, last = PART
    for phone, seed in ((caller, SAYS[1]), (callee, SAYS[0])):
        phone.sees("CALL_ESTABLISHED")
        phone.hears(sound(SAYS_S, seed)[first:last])
    caller.does("hangup")
    (told,) = switch.app.wait("/dialled")
    assert told["DialCallStatus"] == "completed"
    assert switch.ends() == ["completed"]
    for sid in (told["CallSid"], told["DialCallSid"]):
        timeline = switch.fetch(f"{switch.url}/2010-04-01/Accounts/{switch.account.sid}/Calls/{sid}/Timeline.json")
        assert (SUITE in timeline) is cell.srtp
        assert json.loads(timeline)["quality"]["codec"] == cell.codec


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(
            cell, id=f"{cell.transport}-{cell.codec}{'-srtp' if cell.srtp else ''}",
            marks=[] if cell in QUICK else [pytest.mark.slow],
        )
        for cell in CELLS
    ],
)  # fmt: skip
def test_both_hear_each_other(pair: Pair, cell: Cell) -> None:
    a_call(pair, cell)
