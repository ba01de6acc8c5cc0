"""Phones that have an INVITE whose host is killed before it hears a word of them. A phone stands still (SIGSTOP) while
it is called, so that what it says of the INVITE finds nobody; then another server ends the call, of which no
provisional response was ever seen (docs/design/takeover.md).
"""

import os
import signal
from pathlib import Path

import pytest

import redis
from tests.e2e.call_server import NUMBER
from tests.e2e.test_takeover import Cluster, cluster, eventually  # noqa: F401  (fixture)
from tests.interop.baresip import Baresip, write_wav
from tests.interop.phone_calls import SAID
from tests.interop.pjsua import Pjsua
from tests.interop.switch import HOST
from tests.ports import free_port
from tests.postgres import needs_postgres
from tests.redis import needs_redis

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
RINGS = "<sip:bob@{host}:{port};transport={transport}>;audio_codecs=PCMU;answermode=manual;regint=0\n"


@pytest.fixture
def said(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "said.wav", SAID)


def killed_in_between(cluster: Cluster, phone: int, uri: str) -> None:  # noqa: F811
    """The first node calls a phone (its pid) that stands still, and is killed; the phone goes on."""
    first, _ = cluster.nodes
    os.kill(phone, signal.SIGSTOP)
    try:
        first.client.calls.create(
            to=uri, from_=NUMBER, url=f"{cluster.app.url}/voice", status_callback=f"{cluster.app.url}/status"
        )
        with redis.Redis.from_url(cluster.memory.url) as store:
            eventually(lambda: list(store.scan_iter("*call/*/invite")), "the INVITE in the store")
        first.dies()
    finally:
        os.kill(phone, signal.SIGCONT)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_baresip_does_not_ring_on(cluster: Cluster, tmp_path: Path, said: Path, transport: str) -> None:  # noqa: F811
    """It would, for two minutes."""
    port = free_port(HOST, 2)
    accounts = RINGS.format(host=HOST, port=port, transport=transport)
    phone = Baresip(tmp_path / "phone", said, port=port, transport=transport.upper(), accounts=accounts)
    try:
        killed_in_between(cluster, phone._process.pid, f"sip:bob@{HOST}:{port};transport={transport}")
        phone.sees("CALL_INCOMING")
        assert phone.sees("CALL_CLOSED")["param"] == "Connection reset by peer"  # its words for a CANCEL
        (told,) = cluster.app.wait("/status")
        assert told["CallStatus"] == "failed"
    finally:
        print(cluster.nodes[1].tail(40))
        phone.close()


def test_pjsip_that_picked_up_at_once_is_hung_up_on(cluster: Cluster, tmp_path: Path, said: Path) -> None:  # noqa: F811
    """Its 200 finds nobody; the answer to the CANCEL tells the heir its tag."""
    node = f"{HOST}:{cluster.nodes[1].sip_port}"
    phone = Pjsua(tmp_path / "phone", said, user="bob", password="none", domain=node, proxy=f"sip:{node}")
    try:
        phone.sees("registered")  # or not: it listens
        killed_in_between(cluster, phone._process.pid, f"sip:bob@{HOST}:{phone.port}")
        over = phone.sees("state", state="DISCONNECTED")
        assert over["status"] == 200, "by a BYE; 408 would be its own patience"
        (told,) = cluster.app.wait("/status")
        assert told["CallStatus"] == "failed"
    finally:
        print(cluster.nodes[1].tail(40))
        phone.close()
