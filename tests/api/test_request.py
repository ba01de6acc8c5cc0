"""Typed access to parameters."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.api.request import Request, is_http_url
from trunkline.model.errors import ApiError


def post(**form: str | list[str]) -> Request:
    request = Request("POST", "/")
    request.form = {name: value if isinstance(value, list) else [value] for name, value in form.items()}
    return request


def refused(call: Callable[[], Any]) -> int | None:
    with pytest.raises(ApiError) as caught:
        call()
    assert caught.value.status == 400
    return caught.value.code


def test_get_reads_the_query() -> None:
    request = Request("GET", "/")
    request.query_string, request.max_fields = b"To=%2B1555&DateSent%3E=2024-01-02", 10
    request.form = {"To": ["other"]}
    assert request.str("To") == "+1555"
    assert request.query == {"To": ["+1555"], "DateSent>": ["2024-01-02"]}


def test_str() -> None:
    request = post(A="x", Empty="", Many=["1", "2"], Long="y" * 11, Nul="a\x00b")
    assert request.str("A") == "x"
    assert request.str("Empty") == ""
    assert request.has("Empty")
    assert not request.has("None")
    assert request.str("None") is None
    assert request.str("None", default="d") == "d"
    assert request.str("Many") == "2"
    assert refused(lambda: request.str("Long", 10)) == 20422
    assert refused(lambda: request.str("Long", 10, code=21617)) == 21617
    assert refused(lambda: request.str("Nul")) == 20422


def test_required() -> None:
    request = post(A="x", Empty="")
    assert request.required("A") == "x"
    assert refused(lambda: request.required("Empty")) == 20001
    assert refused(lambda: request.required("None", code=21604)) == 21604


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("True", True), ("FALSE", False), ("1", True), ("0", False), ("", None)],
)
def test_bool(text: str, value: bool | None) -> None:
    assert post(A=text).bool("A") is value


def test_bool_default_and_garbage() -> None:
    assert post().bool("A", True) is True
    assert refused(lambda: post(A="maybe").bool("A")) == 20422


def test_int() -> None:
    assert post(A="14400").int("A", 1, 14400) == 14400
    assert post(A="-5").int("A", -5, 5) == -5
    assert post(A="").int("A", 1, 2, 7) == 7
    assert post().int("A", 1, 2) is None
    for bad in ("0", "14401", "1.5", "x", "١", "--1", "-", "1-", "9" * 5000, "1e3"):
        assert refused(lambda bad=bad: post(A=bad).int("A", 1, 14400)) == 20422
    assert refused(lambda: post(A="0").int("A", 1, 36000, code=21624)) == 21624


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9000/cb?x=1", "https://user:pw@example.com", "HTTPS://EXAMPLE.com/ü", "http://[::1]/"]
)
def test_good_urls(url: str) -> None:
    assert post(A=url).url("A") == url


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "//x", "http://", "x", "http://a b/", "http://a/\n", "http://[::1", "http://a:99999/", "http://:80/"],
)
def test_bad_urls(url: str) -> None:
    assert not is_http_url(url)
    assert refused(lambda: post(A="x" + url).url("A")) == 20422


def test_url_edges() -> None:
    assert post(A="").url("A") == ""
    assert post().url("A") is None
    with pytest.raises(ApiError) as caught:
        post(A="nope").url("A", code=21609)
    assert caught.value.message == "The 'StatusCallback' URL nope is not a valid URL."
    assert refused(lambda: post(A="http://x/" + "y" * 4000).url("A")) == 20422


def test_method_of() -> None:
    assert post(A="get").method_of("A") == "GET"
    assert post(A="").method_of("A") is None
    assert refused(lambda: post(A="PUT").method_of("A")) == 20422


def test_list() -> None:
    assert post(A=["a", "", "b"]).list("A") == ["a", "b"]
    assert post().list("A") == []
    assert refused(lambda: post(A=["x"] * 11).list("A", 10, code=21623)) == 21623
    assert refused(lambda: post(A=["a\x00"]).list("A")) == 20422


def test_date_and_enum() -> None:
    assert post(A="2024-02-29").date("A") == date(2024, 2, 29)
    assert post(A="").date("A") is None
    assert refused(lambda: post(A="2023-02-29").date("A")) == 20422
    assert post(A="SENT").enum("A", ("queued", "sent")) == "sent"
    assert refused(lambda: post(A="x").enum("A", ("queued", "sent"))) == 20422


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2024-01-02", 1704153600000),
        ("2024-01-02T03:04:05Z", 1704164645000),
        ("2024-01-02T03:04:05+01:00", 1704161045000),
        ("2024-01-02 03:04:05.250", 1704164645250),
        ("Tue, 02 Jan 2024 03:04:05 +0000", 1704164645000),
    ],
)
def test_instants(text: str, ms: int) -> None:
    assert post(A=text).instant_ms("A") == ms


@given(st.text(max_size=70))
def test_any_text_is_an_instant_or_refused(text: str) -> None:
    try:
        value = post(A=text).instant_ms("A")
    except ApiError as error:
        value = error.status
    assert value is None or value >= 0


def test_ranges() -> None:
    def ranged(**fields: str) -> tuple[int | None, int | None]:
        request = Request("GET", "/")
        request._query = {name.replace("_lt", "<").replace("_gt", ">"): [value] for name, value in fields.items()}
        return request.range_ms("DateSent")

    day, next_day = 1704153600000, 1704240000000
    assert ranged(DateSent="2024-01-02") == (day, next_day)
    assert ranged(DateSent="2024-01-02T00:00:00Z") == (day, next_day)
    assert ranged(DateSent="2024-01-02T00:00:01Z") == (day + 1000, day + 2000)
    assert ranged(DateSent_gt="2024-01-02", DateSent_lt="2024-01-03") == (day, next_day + 1000)
    assert ranged() == (None, None)


def test_headers() -> None:
    request = post()
    request.headers = {b"x-twilio-client": b"python"}
    assert request.header("X-Twilio-Client") == "python"
    assert request.header("None") is None
