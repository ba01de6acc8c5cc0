"""The lab's name server: one query, one answer."""

import socket
import subprocess
import sys

import pytest
from lab.system import ROOT

from lab import names, probe

KNOWN = {"webhooks.lab.test": "10.77.200.3"}


def test_what_is_known_has_an_address() -> None:
    found = names.answer(names.ask("Webhooks.lab.test", 7), KNOWN)
    assert found[:2] == b"\x00\x07"
    assert found[3] & 15 == 0
    assert found[-4:] == socket.inet_aton("10.77.200.3")


def test_what_is_not_known_does_not_exist() -> None:
    found = names.answer(names.ask("other.lab.test", 8), KNOWN)
    assert (found[3] & 15, found[6:8]) == (3, b"\0\0")


def test_another_kind_of_record_is_not_there_but_the_name_is() -> None:
    query = bytearray(names.ask("webhooks.lab.test", 9))
    query[-3] = 28  # AAAA
    found = names.answer(bytes(query), KNOWN)
    assert (found[3] & 15, found[6:8]) == (0, b"\0\0")


@pytest.mark.parametrize("data", [b"", b"\0" * 12 + b"\x3f", names.ask("a.test", 1)[:15]])
def test_what_is_no_query_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        names.answer(data, KNOWN)


def test_it_serves() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind(("127.0.0.1", 0))
        port = line.getsockname()[1]
    command = [sys.executable, str(ROOT / "lab/names.py"), "--host", "127.0.0.1", "--port", str(port), "a.test=1.2.3.4"]
    child = subprocess.Popen(command)
    try:
        while not probe.resolves("127.0.0.1", port, "a.test"):
            assert child.poll() is None
        assert not probe.resolves("127.0.0.1", port, "b.test")
    finally:
        child.kill()
        child.wait()
