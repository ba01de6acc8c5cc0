"""The control socket between the supervisor and the node."""

import os
import socket
import subprocess
import sys

import pytest

from trunkline.inherited import NAMES, Channel


@pytest.fixture
def ends():
    made = [Channel(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
    yield made
    for one in made:
        one.end.close()


def test_nothing_to_hear_is_no_end(ends):
    assert ends[0].heard() is None
    assert ends[1].say({"event": "ready"})
    assert ends[0].heard() == ({"event": "ready"}, [])
    assert ends[0].heard() is None


@pytest.mark.parametrize("unread", [0, 1, 3])
def test_last_words_are_heard_whatever_was_left_unread(ends, unread):
    ours, its = ends
    for _ in range(unread):
        ours.say({"do": "health"})
    its.say({"event": "connections"}, (0,))
    its.say({"event": "released"})
    its.end.close()
    message, (descriptor,) = ours.heard()
    os.close(descriptor)
    assert message == {"event": "connections"}
    assert ours.heard() == ({"event": "released"}, [])
    for _ in range(2):
        with pytest.raises(EOFError):
            ours.heard()


def test_what_is_no_message_is_heard_as_nothing(ends):
    ends[1].end.send(b"\xff{")
    assert ends[0].heard() == ({}, [])


def test_what_comes_is_not_passed_on(ends):
    ends[0].say({"event": "connections"}, (0,))
    _, (descriptor,) = ends[1].heard()
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_what_a_process_was_given_it_keeps_to_itself():
    """uvloop closes no descriptor for the processes that it starts: a worker that ends late would hold the port."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        told = f"import os, trunkline.inherited; print(os.get_inheritable({given.fileno()}))"
        done = subprocess.run(
            [sys.executable, "-c", told], env={**os.environ, NAMES: f"http-0={given.fileno()}"},
            pass_fds=[given.fileno()], capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    assert done.stdout == "False\n"
