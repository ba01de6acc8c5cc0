"""Next hops: transports, default ports, SIPS, routes."""

import msgspec
import pytest

from trunkline.sip.flow import Flow, Target, default_port, next_hop, plan
from trunkline.sip.uri import Uri


@pytest.mark.parametrize(
    ("uri", "otherwise", "expected"),
    [
        ("sip:a@192.0.2.1", "", ("", "192.0.2.1", 5060)),
        ("sip:a@192.0.2.1;transport=TCP", "", ("TCP", "192.0.2.1", 5060)),
        ("sip:a@192.0.2.1;transport=tls", "", ("TLS", "192.0.2.1", 5061)),
        ("sip:a@192.0.2.1", "TLS", ("TLS", "192.0.2.1", 5061)),
        ("sip:a@192.0.2.1:5070;transport=tcp", "TLS", ("TCP", "192.0.2.1", 5070)),
        ("sips:a@192.0.2.1;transport=tcp", "", ("TLS", "192.0.2.1", 5061)),
        ("sips:a@[2001:db8::1]:5071", "", ("TLS", "2001:db8::1", 5071)),
        ("sip:a@example.com", "", ("", "example.com", 0)),
        ("sip:a@pbx1", "", ("", "pbx1", 0)),
        ("sip:a@sbc-0.carrier2", "TCP", ("TCP", "sbc-0.carrier2", 0)),
        ("sip:a@example.com:5060", "", ("", "example.com", 5060)),
        ("sip:a@example.com;maddr=192.0.2.9", "", ("", "192.0.2.9", 5060)),
    ],
)
def test_where_a_uri_leads(uri: str, otherwise: str, expected: tuple[str, str, int]) -> None:
    """A name without a port keeps 0: its SRV records may say another (RFC 3263 section 4.2)."""
    assert next_hop(Uri.parse(uri), otherwise) == Target(*expected)


def test_a_route_set_leads_to_its_first() -> None:
    target = "sip:bob@192.0.2.5;transport=tls"
    assert plan((), target) == (target, [], Target("TLS", "192.0.2.5", 5061))
    loose, strict = "<sip:192.0.2.7;lr>", "<sip:192.0.2.8>"
    assert plan((loose,), target, "TCP") == (target, [loose], Target("TCP", "192.0.2.7", 5060))
    uri, routes, hop = plan((strict, loose), target)
    assert (uri, routes, hop.host) == ("sip:192.0.2.8", [loose, f"<{target}>"], "192.0.2.8")


def test_flows_share_their_fate_by_path() -> None:
    flow = Flow("TLS", ("192.0.2.1", 5061), ("192.0.2.2", 5061), 7, "a.example")
    assert flow.reliable
    assert flow.path == flow._replace(local=("192.0.2.3", 1)).path
    assert flow.path != flow._replace(domain="b.example").path
    assert (default_port("TLS"), default_port("TCP"), default_port("")) == (5061, 5060, 5060)


def test_a_flow_that_was_stored_without_a_domain_can_be_read() -> None:
    stored = msgspec.msgpack.encode(["TCP", ["192.0.2.1", 5060], ["192.0.2.2", 5060], 7])
    assert msgspec.msgpack.decode(stored, type=Flow) == Flow("TCP", ("192.0.2.1", 5060), ("192.0.2.2", 5060), 7)
