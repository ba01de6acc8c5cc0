"""The control socket between the supervisor and the node."""

import os
import socket

import pytest

from trunkline.inherited import Channel


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
