"""Phones in a call whose server is killed: another one re-INVITEs them, and they go on. baresip over UDP and TCP, PJSIP
with SRTP; baresip 1.0 keeps the first key that it was told, whatever a re-INVITE says, and does not hear the heir.
"""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_takeover import Cluster, eventually
from tests.e2e.voice_app import response
from tests.interop.baresip import Baresip, write_wav
from tests.interop.phone_calls import GREETING, SAID, THANKS
from tests.interop.pjsua import Pjsua
from tests.interop.switch import HOST
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import needs_redis

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
NUMBER = "+12015550100"


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer) -> Iterator[Cluster]:
    """Two nodes."""
    yield from started(Cluster(tmp_path, postgres), tmp_path)


@pytest.fixture
def secure_cluster(tmp_path: Path, postgres: PostgresServer) -> Iterator[Cluster]:
    """Two nodes that take keys over UDP."""
    yield from started(Cluster(tmp_path, postgres, {"srtp_without_tls": True}), tmp_path)


def started(made: Cluster, tmp_path: Path) -> Iterator[Cluster]:
    """The menu repeats the greeting until a key is pressed, and thanks at the second one."""
    for name, samples in (("greeting", GREETING), ("thanks", THANKS)):
        made.app.files[f"/{name}.wav"] = ("audio/wav", write_wav(tmp_path / f"{name}.wav", samples).read_bytes())
    made.app.answers["/menu"] = response(
        '<Gather numDigits="2" timeout="60" action="/thanks"><Play loop="0">/greeting.wav</Play></Gather>'
    )
    made.app.answers["/thanks"] = response('<Play loop="4">/thanks.wav</Play><Hangup/>')
    try:
        yield made.start()
    finally:
        made.close()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_it_follows_its_call_to_another_host(cluster: Cluster, tmp_path: Path, transport: str) -> None:
    first, second = cluster.nodes
    first.answer_at(f"{cluster.app.url}/menu", f"{cluster.app.url}/status")
    said = write_wav(tmp_path / "said.wav", SAID)
    phone = Baresip(tmp_path / "phone", said, transport=transport.upper())
    try:
        phone.does("dial", f"sip:{NUMBER}@{HOST}:{first.sip_port};transport={transport}")
        phone.sees("CALL_ESTABLISHED")
        phone.hears(GREETING)
        phone.does("sndcode", "4")
        time.sleep(1)
        first.dies()
        eventually(lambda: "were taken over" in second.text(), "the takeover")
        time.sleep(1)
        phone.does("sndcode", "2")
        (form,) = cluster.app.wait("/thanks")
        assert form["Digits"] == "42"  # one key before, one after
        phone.hears(THANKS)
        phone.sees("CALL_CLOSED")
        (told,) = cluster.app.wait("/status")
        assert told["CallStatus"] == "completed"
    except (AssertionError, subprocess.TimeoutExpired):
        print(second.tail(60))
        raise
    finally:
        phone.close()


def test_pjsip_takes_the_new_keys_of_another_host(secure_cluster: Cluster, tmp_path: Path) -> None:
    """Its call has SRTP: the lost host's keys are never used again."""
    first, second = secure_cluster.nodes
    first.answer_at(f"{secure_cluster.app.url}/menu", f"{secure_cluster.app.url}/status")
    said = write_wav(tmp_path / "said.wav", SAID)
    phone = Pjsua(
        tmp_path / "phone", said, user="alice", password="none", domain=f"{HOST}:{first.sip_port}",
        proxy=f"sip:{HOST}:{first.sip_port}", srtp="srtp",
    )  # fmt: skip
    try:
        phone.does("dial", uri=f"sip:{NUMBER}@{HOST}:{first.sip_port}")
        assert phone.sees("media")["srtp"] is True
        phone.hears(GREETING)
        phone.does("press", digits="4")
        time.sleep(1)
        first.dies()
        eventually(lambda: "were taken over" in second.text(), "the takeover")
        time.sleep(1)
        phone.does("press", digits="2")
        (form,) = secure_cluster.app.wait("/thanks")
        assert form["Digits"] == "42"
        phone.hears(THANKS)
    finally:
        print(second.tail(20))
        phone.close()
