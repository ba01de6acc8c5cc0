"""Status callbacks: the short way for plain URLs agrees with the long one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trunkline.accounts.callbacks import _PLAIN, _Plan, _Site
from trunkline.settings import Webhooks
from trunkline.webhooks.failures import Failure
from trunkline.webhooks.target import target

WEBHOOKS = Webhooks()


@given(st.from_regex(_PLAIN, fullmatch=True))
@example("http://h:80/a?b=c&d=%20")
@example("https://H.example:443/x;y=1?q=~a|".replace("|", ""))
@example("http://127.0.0.1:9000/cb?k=1")
@example("http://-/")
@example("http://h:0/")
@example("http://h:99999/")
def test_plain_urls_are_what_the_careful_way_makes_of_them(url):
    authority, path = _PLAIN.fullmatch(url).groups()
    try:
        expected = target(url)
    except Failure as failure:
        with pytest.raises(type(failure)):
            _Site(_Plan(authority + "/", WEBHOOKS))
        return
    site = _Site(_Plan(authority + "/", WEBHOOKS))
    assert (site.prefix + path, path) == (expected.url, expected.path)
    known = site.plan.target
    assert (known.scheme, known.host, known.port) == (expected.scheme, expected.host, expected.port)
    assert f"\r\nHost: {expected.host_header}\r\n" in site.after_path


@pytest.mark.parametrize(
    "url",
    [
        "http://user@h/", "http://u:p@h/", "http://h/#rc=1", "http://h", "http://h?x=1", "http://h/a b", 'http://h/"',
        "http://h/\\", "http://h/\r\nX: y", "http://h/ä", "http://[::1]/", "ftp://h/", "http:///x", "http://h:1a/",
        "http://h/a\n", "http://a_b/",
    ],
)  # fmt: skip
def test_anything_else_takes_the_careful_way(url):
    assert _PLAIN.fullmatch(url) is None
