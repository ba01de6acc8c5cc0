"""What the sockets say of the ways to a peer."""

import pytest

from trunkline.sip.transport_sockets import source_towards


@pytest.mark.parametrize("host", ["\0.1", "a\0b", "." * 70, "é" * 70 + ".1"])
def test_a_peer_that_names_no_host_has_an_address_to_hear_us_from(host):
    assert source_towards(host) == "127.0.0.1"
