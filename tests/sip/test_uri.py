"""URIs: RFC 3261 section 19.1, RFC 3966."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.sip.errors import MalformedMessage
from trunkline.sip.uri import Uri, same


def test_every_part_of_a_uri() -> None:
    text = "sips:alice:p%40ss@[2001:DB8::1]:5061;transport=TCP;lr;x=%61?Subject=hi%20you&Priority=urgent"
    uri = Uri.parse(text)
    assert (uri.scheme, uri.user, uri.password) == ("sips", "alice", "p@ss")
    assert (uri.host, uri.bare_host, uri.port) == ("[2001:db8::1]", "2001:db8::1", 5061)
    assert uri.params == {"transport": "TCP", "lr": None, "x": "a"}
    assert uri.headers == {"subject": "hi you", "priority": "urgent"}
    assert str(uri) == text
    changed = uri.replace(port=None, headers={})
    assert str(changed) == "sips:alice:p%40ss@[2001:db8::1];transport=TCP;lr;x=a"


@pytest.mark.parametrize(
    ("text", "user", "host"),
    [
        ("sip:example.com", "", "example.com"),
        ("SIP:+1(555)000-1;ext=2@h", "+1(555)000-1;ext=2", "h"),
        ("sip:a?b@h", "a?b", "h"),
        ("sip:%e5%a4%a7@h", "大", "h"),
        ("sip:%ff@h", "�", "h"),
        ("tel:+1-555-0001;phone-context=x", "+1-555-0001", ""),
        ("urn:service:sos", "service:sos", ""),
    ],
)
def test_unusual_but_valid(text: str, user: str, host: str) -> None:
    uri = Uri.parse(text)
    assert (uri.user, uri.host) == (user, host)


@pytest.mark.parametrize(
    "text",
    [
        "", "sip", "sip:", ":x", "sip:@h", "sip:a@", "sip:a@h:", "sip:a@h:65536", "sip:a@h:-1", "sip:a@h:5x",
        "sip:a@h:٣",
        "sip:a@b@c", "sip:a b@h", "sip:a@h h", "sip:a@h;x y", "sip:a@[::1", "sip:a@[zz]", "sip:a@[::1]x", "sip:a@::1",
        "sip:a@h,b", "<sip:a@h>", "sip:a@h>", "1sip:a@h", "s p:a", "tel:+1 5", "sip:a@é", "sip::pw@h",
        "sip:a@h;maddr=x@y",
    ],
)  # fmt: skip
def test_malformed(text: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        Uri.parse(text)
    assert caught.value.status == 400


EQUIVALENT = [
    ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
    ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
    (
        "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
        "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
    ),
    (
        "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
        "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
    ),
]
DIFFERENT = [
    ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
    ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
    ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
    ("sip:bob@h", "sips:bob@h"),
]


@pytest.mark.parametrize(("left", "right"), EQUIVALENT)
def test_rfc_3261_equivalents(left: str, right: str) -> None:
    assert same(Uri.parse(left), Uri.parse(right))
    assert same(Uri.parse(right), Uri.parse(left))


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_rfc_3261_differences(left: str, right: str) -> None:
    assert not same(Uri.parse(left), Uri.parse(right))
    assert not same(Uri.parse(right), Uri.parse(left))


@settings(max_examples=300, deadline=None)
@given(user=st.text(min_size=1, max_size=20), value=st.text(max_size=20), header=st.text(max_size=20))
def test_what_is_made_is_read_back(user: str, value: str, header: str) -> None:
    try:
        made = Uri(user=user, password=value, host="h", port=1, params={"x": value, "lr": None}, headers={"y": header})
        again = Uri.parse(str(made))
    except UnicodeEncodeError:
        return  # lone surrogates are no text
    assert again.replace() == made


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet='sip:tel@;?=&%[]<>,."\\ +-09afAF\r\n\x00é', max_size=40))
def test_no_text_raises_anything_else(text: str) -> None:
    for start in ("", "sip:", "sip:a@h"):
        try:
            uri = Uri.parse(start + text)
        except MalformedMessage:
            continue
        assert same(uri, uri)
        assert same(Uri.parse(str(uri.replace())), uri) or uri.scheme not in ("sip", "sips")
