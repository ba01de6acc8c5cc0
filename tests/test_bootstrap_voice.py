"""What the wiring of the voice part decides itself."""

from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.bootstrap_voice import Voice
from trunkline.model.clock import SystemClock
from trunkline.settings import Settings, Trunk
from trunkline.settings import Voice as VoiceSettings
from trunkline.voice.sources import Sources
from trunkline.webhooks.failures import HostRefused

CARRIER = Trunk(name="carrier", gateways=("sip:carrier.example",), addresses=("44.1.0.0/16", "10.0.0.0/8"))


def wired(*, sip_to_trunks: bool = False) -> Any:
    """As much of it as looking up a customer's host takes; the gateway's name stands for 52.1.1.1."""

    async def resolve(host: str) -> str:
        return host

    settings = Settings(trunks=(CARRIER,), voice=VoiceSettings(sip_to_trunks=sip_to_trunks))
    made: Any = object.__new__(Voice)
    made.settings = settings
    made._guard = SimpleNamespace(resolve=resolve)
    made.permissions = SimpleNamespace(is_trunk=lambda host: False)
    made.sources = Sources(settings.trunks, "us", b"key", 10, SystemClock())
    made.inbound = SimpleNamespace(doors=SimpleNamespace(knows=lambda host: host == "52.1.1.1"))
    return made


@pytest.mark.parametrize("host", ["52.1.1.1", "44.1.200.7"])
async def test_customers_do_not_name_a_carriers_hosts(host: str) -> None:
    """Neither its gateway by another name nor those that it calls from: they take our address for a login."""
    with pytest.raises(HostRefused):
        await wired()._resolve(host)
    assert await wired(sip_to_trunks=True)._resolve(host) == host


@pytest.mark.parametrize("host", ["44.2.0.1", "10.0.0.5", "127.0.0.1"])
async def test_other_hosts_they_do(host: str) -> None:
    """A PBX in the operator's own network was let in by him."""
    assert await wired()._resolve(host) == host


@pytest.mark.parametrize(("abandoned", "held", "has"), [(False, [], True), (True, [], False), (True, ["step"], True)])
def test_calls_that_were_let_go_of_are_not_up(abandoned: bool, held: list[str], has: bool) -> None:
    """They stay among the live ones until the media process has closed them."""
    made: Any = object.__new__(Voice)
    made.services = SimpleNamespace(live={"CA1": SimpleNamespace(abandoned=abandoned)})
    made.flights = SimpleNamespace(held=lambda is_in: held)
    assert made.has_calls(lambda sid: sid == "CA1") is has
    assert made.has_calls(lambda sid: sid == "CA2") is bool(held)
