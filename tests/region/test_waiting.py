"""A node that waits for its region's turn."""

import http.client

import pytest

from trunkline.region.rules import Role, Standing
from trunkline.region.waiting import NotActive, Notice, until_active


@pytest.fixture
def notice():
    made = Notice("127.0.0.1", 0)
    yield made
    made.close()


def ask(notice, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", notice.port, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Retry-After")
    finally:
        connection.close()


def test_it_says_what_it_waits_for(notice):
    notice.say("standby: one is active in epoch 1")
    assert ask(notice, "GET", "/healthz") == (200, b"ok\n", None)
    status, body, after = ask(notice, "GET", "/readyz")
    assert (status, after) == (503, "5")
    assert b"one is active in epoch 1" in body
    status, body, after = ask(notice, "POST", "/2010-04-01/Accounts/AC1/Messages.json", b"To=%2B1" * 50)
    assert (status, after) == (503, "5")
    assert b'"code":20503' in body
    assert ask(notice, "HEAD", "/x")[:2] == (503, b"")


def test_it_waits_until_it_is_its_turn():
    looks = iter([
        Standing(Role.STANDBY, "standby"), Standing(Role.UNKNOWN, "?"), Standing(Role.COMING, "soon"),
        Standing(Role.ACTIVE, "active"),
    ])  # fmt: skip
    said = []
    assert until_active(lambda: next(looks), said.append, 0).role is Role.ACTIVE
    assert said == ["standby", "?", "soon"]


def test_a_region_that_was_replaced_does_not_wait():
    with pytest.raises(NotActive, match="two is active"):
        until_active(lambda: Standing(Role.REPLACED, "two is active"), lambda text: None, 0)
