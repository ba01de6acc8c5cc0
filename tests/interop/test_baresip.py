"""baresip as a real phone at the whole server: real audio and keys in both directions, over UDP and TCP."""

import pytest

from tests.interop.phone_calls import GREETING, Start, a_held_call, an_ivr, says, starts  # noqa: F401  (fixtures)
from tests.interop.switch import NUMBER, TO_PHONE, Peers, Switch

SLOW = pytest.mark.slow


@pytest.mark.parametrize("transport", ["UDP", pytest.param("TCP", marks=SLOW)])
def test_it_calls_presses_keys_and_is_recorded(switch: Switch, start: Start, transport: str) -> None:
    uri = f"sip:{NUMBER}@{switch.host}:{switch.sip_port};transport={transport.lower()}"
    an_ivr(switch, start(transport=transport), uri)


@pytest.mark.parametrize("transport", [pytest.param("UDP", marks=SLOW), "TCP"])
def test_it_is_called_and_holds(switch: Switch, start: Start, peers: Peers, transport: str) -> None:
    number = f"{TO_PHONE[transport]}77"
    a_held_call(switch, start(transport=transport, port=peers.phone, user=number), number)


def test_a_law(switch: Switch, start: Start, peers: Peers) -> None:
    """The phone only knows A-law; the API hangs up."""
    number = f"{TO_PHONE['UDP']}77"
    phone = start(codecs="PCMA", port=peers.phone, user=number)
    switch.app.hooks.clear()
    made = switch.calls(number, f"<Play loop='0'>{switch.app.url}/greeting.wav</Play>")
    phone.hears(GREETING)
    switch.client.calls(made.sid).update(status="completed")
    phone.sees("CALL_CLOSED")
    assert switch.ends() == ["completed"]
