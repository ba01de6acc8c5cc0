"""A server with a trunk to these tests' own line, for tests of audio."""

from collections.abc import Iterator

import pytest

from tests.e2e.audio_legs import Legs
from tests.e2e.audio_line import Line
from tests.e2e.audio_peer import HOST, Wire
from tests.interop.switch import Switch

LEGS = 160
RTP_TIMEOUT_S = 4


@pytest.fixture(scope="session")
def audio_switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    """The shared server: calls from this host are taken."""
    near = {"name": "near", "addresses": [f"{HOST}/32"], "prefixes": []}
    media = {"legs": LEGS, "rtp_timeout_s": RTP_TIMEOUT_S}
    switch = Switch(tmp_path_factory.mktemp("audio"), [near], media=media)
    switch.app._server.socket.listen(LEGS)  # that many calls at once ask it at once
    try:
        yield switch.start()
    finally:
        switch.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    """What paces the endpoints."""
    wire = Wire()
    yield wire
    wire.close()


@pytest.fixture
def line(wire: Wire, audio_switch: Switch) -> Iterator[Line]:
    """A SIP line to the shared server."""
    line = Line(wire, (audio_switch.host, audio_switch.sip_port))
    yield line
    line.close()


@pytest.fixture
def legs(audio_switch: Switch, line: Line, wire: Wire) -> Legs:
    """Calls of this test to the shared server whose keys are gathered."""
    return Legs(audio_switch, line, wire)
