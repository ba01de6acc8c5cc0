"""Lists: the shapes that SDKs walk, and keyset tokens."""

from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.harness import MESSAGES, Harness
from trunkline.api import paging
from trunkline.api.paging import Page, PageRequest
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route

TOTAL = 7


async def listing(request: Request, app: Any) -> Response:
    """Items 0..6, newest (0) first, by the keyset rules."""
    asked = paging.read(request)
    keys = [f"k{i}" for i in range(TOTAL)]
    if asked.before is not None:
        found = [key for key in keys if key < asked.before][-(asked.size + 1) :]
    else:
        found = [key for key in keys if asked.after is None or key > asked.after][: asked.size + 1]
    items, after, before = paging.cut(found, asked, lambda key: key)
    return paging.render(request, asked, Page("messages", "Message", [{"sid": key} for key in items], after, before))


def harness() -> Harness:
    return Harness(
        [
            Route("api", "GET", "/2010-04-01/Accounts/{AccountSid}/Messages", listing),
            Route("messaging", "GET", "/v1/Services", listing),
        ]
    )


async def test_v2010_shape() -> None:
    reply = await harness().get(MESSAGES + ".json?PageSize=3&To=%2B1555&DateSent%3E=2008-01-02")
    assert reply.status == 200
    base = MESSAGES + ".json?To=%2B1555&DateSent%3E=2008-01-02&PageSize=3&Page="
    assert reply.json == {
        "first_page_uri": base + "0",
        "end": 2,
        "next_page_uri": base + "1&PageToken=PAk2",
        "page": 0,
        "page_size": 3,
        "previous_page_uri": None,
        "start": 0,
        "uri": base + "0",
        "messages": [{"sid": "k0"}, {"sid": "k1"}, {"sid": "k2"}],
    }


async def test_walking_forth_and_back() -> None:
    api = harness()
    forth = []
    uri: str | None = MESSAGES + ".json?PageSize=3"
    while uri:
        page = (await api.get(uri)).json
        forth.append([item["sid"] for item in page["messages"]])
        last, uri = page, page["next_page_uri"]
    assert forth == [["k0", "k1", "k2"], ["k3", "k4", "k5"], ["k6"]]
    assert (last["page"], last["start"], last["end"]) == (2, 6, 6)
    back = []
    uri = last["previous_page_uri"]
    while uri:
        page = (await api.get(uri)).json
        back.append([item["sid"] for item in page["messages"]])
        uri = page["previous_page_uri"]
    assert back == [["k3", "k4", "k5"], ["k0", "k1", "k2"]]
    assert page["next_page_uri"].endswith("PageToken=PAk2")
    assert page["page"] == 0


async def test_meta_shape_mirrors_the_clients_host() -> None:
    api = harness()
    reply = await api.get("/v1/Services?PageSize=5", host="messaging.twilio.com", scheme="https")
    url = "https://messaging.twilio.com/v1/Services?PageSize=5&Page="
    assert set(reply.json) == {"messages", "meta"}
    assert reply.json["meta"] == {
        "page": 0,
        "page_size": 5,
        "first_page_url": url + "0",
        "previous_page_url": None,
        "url": url + "0",
        "next_page_url": url + "1&PageToken=PAk4",
        "key": "messages",
    }
    prefixed = await api.get("/messaging/v1/Services?PageSize=5", host="127.0.0.1:9999")
    next_url = urlsplit(prefixed.json["meta"]["next_page_url"])
    assert (next_url.netloc, next_url.path) == ("127.0.0.1:9999", "/messaging/v1/Services")
    following = await api.get(f"{next_url.path}?{next_url.query}", host="127.0.0.1:9999")
    assert [item["sid"] for item in following.json["messages"]] == ["k5", "k6"]


async def test_xml() -> None:
    reply = await harness().get(MESSAGES + "?PageSize=3")
    assert reply.headers["content-type"] == "application/xml"
    listed = ElementTree.fromstring(reply.body)[0]
    assert (listed.tag, listed.attrib["page"], listed.attrib["pagesize"]) == ("Messages", "0", "3")
    assert listed.attrib["nextpageuri"] == MESSAGES + "?PageSize=3&Page=1&PageToken=PAk2"
    assert [item.findtext("Sid") for item in listed] == ["k0", "k1", "k2"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("PageSize=1001", 20007),
        ("PageSize=0", 20422),
        ("PageSize=-1", 20422),
        ("PageSize=abc", 20422),
        ("PageSize=" + "9" * 5000, 20422),
        ("Page=1", 70002),
        ("Page=x", 20422),
        ("PageToken=XX", 20422),
        ("PageToken=PA%00", 20422),
        ("PageToken=PA" + "a" * 300, 20422),
    ],
)
async def test_bad_paging(query: str, code: int) -> None:
    reply = await harness().get(f"{MESSAGES}.json?{query}")
    assert (reply.status, reply.code) == (400, code)


async def test_defaults_and_maximum() -> None:
    assert (await harness().get(MESSAGES + ".json")).json["page_size"] == 50
    assert (await harness().get(MESSAGES + ".json?PageSize=1000&Page=&PageToken=")).json["page_size"] == 1000


@given(st.integers(0, 30), st.integers(1, 8))
def test_cut_covers_every_item_once(total: int, size: int) -> None:
    keys = [f"{i:02d}" for i in range(total)]
    seen: list[str] = []
    after: str | None = None
    for page in range(total + 1):
        found = [key for key in keys if after is None or key > after][: size + 1]
        items, after, before = paging.cut(found, PageRequest(size, page, after, None), lambda key: key)
        seen += items
        assert (before is None) == (page == 0 or not items)
        if after is None:
            break
    assert seen == keys


def test_empty_page_has_no_neighbours() -> None:
    assert paging.cut([], PageRequest(5, 0, None, None), str) == ([], None, None)
    assert paging.cut([], PageRequest(5, 1, None, "k"), str) == ([], None, None)
