"""SRTP in offer and answer: RFC 4568 section 7.1."""

import random

import pytest

from tests.sip.test_offer_answer import audio, described, local, m_lines
from trunkline.sip import sdes, sdp
from trunkline.sip.offer_answer import Local, NotAcceptable, answer, conclude, offer, revise

THEIRS = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
KEYS = tuple(sdes.make_key(random.Random(seed).randbytes(sdes.KEY_BYTES)) for seed in (1, 2))
LONG, SHORT = sdes.SUITES


def ours(srtp: str = "optional", **changes: object) -> Local:
    return local(srtp=srtp, srtp_keys=KEYS, **changes)


def secure(*lines: str, profile: str = "RTP/SAVP") -> bytes:
    return described(f"m=audio 20000 {profile} 0", *(lines or (f"a=crypto:1 {LONG} inline:{THEIRS}",)))


def crypto(body: bytes) -> list[str]:
    return [line for media in sdp.parse(body).media for line in media.attributes("crypto")]


@pytest.mark.parametrize("profile", ["RTP/SAVP", "RTP/SAVPF"])
@pytest.mark.parametrize("srtp", ["optional", "required"])
def test_a_secure_offer_is_answered_with_a_key_of_ours(srtp: str, profile: str) -> None:
    negotiated = answer(secure(profile=profile), ours(srtp))
    assert m_lines(negotiated.sdp) == [f"audio 30000 {profile} 0"]
    assert crypto(negotiated.sdp) == [f"1 {LONG} inline:{KEYS[0]}"]
    assert negotiated.srtp == sdes.Srtp(suite=LONG, ours=KEYS[0], theirs=THEIRS)


def test_the_first_line_that_we_know_is_taken_with_its_number() -> None:
    lines = (
        f"a=crypto:1 AEAD_AES_256_GCM inline:{THEIRS}",
        f"a=crypto:2 {LONG} inline:{THEIRS} UNENCRYPTED_SRTP",
        f"a=crypto:3 {SHORT} inline:{THEIRS}",
        f"a=crypto:4 {LONG} inline:{THEIRS}",
    )
    negotiated = answer(secure(*lines), ours())
    assert crypto(negotiated.sdp) == [f"3 {SHORT} inline:{KEYS[1]}"]
    assert negotiated.srtp is not None
    assert (negotiated.srtp.suite, negotiated.srtp.ours) == (SHORT, KEYS[1])


@pytest.mark.parametrize(
    ("srtp", "body"),
    [
        ("off", secure()),
        ("required", audio()),
        ("optional", secure(f"a=crypto:1 AEAD_AES_256_GCM inline:{THEIRS}")),
        ("optional", secure("a=ptime:20")),
        ("optional", secure(profile="UDP/TLS/RTP/SAVP")),
    ],
)
def test_what_cannot_be_taken_is_not_acceptable(srtp: str, body: bytes) -> None:
    with pytest.raises(NotAcceptable):
        answer(body, ours(srtp))


def test_where_srtp_is_optional_a_plain_offer_stays_plain_and_a_secure_stream_is_preferred() -> None:
    assert answer(audio(), ours()).srtp is None
    both = described("m=audio 20000 RTP/AVP 0", "m=audio 20002 RTP/SAVP 0", f"a=crypto:1 {LONG} inline:{THEIRS}")
    negotiated = answer(both, ours())
    assert m_lines(negotiated.sdp) == ["audio 0 RTP/AVP 0", "audio 30000 RTP/SAVP 0"]
    assert negotiated.remote == ("192.0.2.10", 20002)
    assert m_lines(answer(both, local()).sdp) == ["audio 30000 RTP/AVP 0", "audio 0 RTP/SAVP 0"]


@pytest.mark.parametrize("srtp", ["optional", "required"])
def test_keys_in_the_plain_profile_are_taken_as_phones_mean_them(srtp: str) -> None:
    offered = audio(f"a=crypto:4 {LONG} inline:{THEIRS}")
    negotiated = answer(offered, ours(srtp))
    assert m_lines(negotiated.sdp) == ["audio 30000 RTP/AVP 0"]
    assert crypto(negotiated.sdp) == [f"4 {LONG} inline:{KEYS[0]}"]
    assert negotiated.srtp == sdes.Srtp(suite=LONG, ours=KEYS[0], theirs=THEIRS)
    again = offer(ours(srtp), negotiated.sdp)
    assert crypto(again) == crypto(negotiated.sdp)
    assert conclude(again, offered, ours(srtp)).srtp == negotiated.srtp
    if srtp == "required":
        with pytest.raises(NotAcceptable):
            conclude(again, audio(), ours(srtp))
    plain = answer(offered, local())
    assert (plain.srtp, crypto(plain.sdp)) == (None, [])


def test_keys_in_the_answer_to_an_offer_without_are_passed_over() -> None:
    answered = audio(f"a=crypto:1 {LONG} inline:{THEIRS}")
    assert conclude(offer(ours()), answered, ours()).srtp is None


def test_our_offer_names_a_key_for_each_suite_and_the_answer_picks_one() -> None:
    offered = offer(ours("required"))
    assert m_lines(offered) == ["audio 30000 RTP/SAVP 0 8 101"]
    assert crypto(offered) == [f"1 {LONG} inline:{KEYS[0]}", f"2 {SHORT} inline:{KEYS[1]}"]
    for tag, suite, key in ((1, LONG, KEYS[0]), (2, SHORT, KEYS[1])):
        negotiated = conclude(offered, secure(f"a=crypto:{tag} {suite} inline:{THEIRS}"), ours("required"))
        assert negotiated.srtp == sdes.Srtp(suite=suite, ours=key, theirs=THEIRS)


@pytest.mark.parametrize(
    "body",
    [
        audio(),
        audio(f"a=crypto:1 {LONG} inline:{THEIRS}"),
        secure(profile="RTP/SAVPF"),
        secure("a=ptime:20"),
        secure(f"a=crypto:2 {LONG} inline:{THEIRS}"),
        secure(f"a=crypto:3 {LONG} inline:{THEIRS}"),
    ],
)
def test_answers_that_weaken_or_misread_our_offer(body: bytes) -> None:
    with pytest.raises(NotAcceptable):
        conclude(offer(ours("required")), body, ours("required"))


def test_our_first_offer_is_plain_where_srtp_is_optional() -> None:
    assert m_lines(offer(ours())) == ["audio 30000 RTP/AVP 0 8 101"]
    assert conclude(offer(ours()), audio(), ours()).srtp is None


def test_a_secure_answer_to_a_plain_offer_is_none() -> None:
    with pytest.raises(NotAcceptable):
        conclude(offer(local()), secure(), ours())


def test_a_new_offer_in_a_session_keeps_profile_and_keys() -> None:
    first = answer(secure(), ours())
    again = offer(ours(), first.sdp)
    assert revise(first.sdp, again).count(b"RTP/SAVP ") == 1
    assert crypto(again) == crypto(first.sdp)
    concluded = conclude(again, secure(), ours())
    assert concluded.srtp == first.srtp
    plain = answer(audio(), ours())
    assert m_lines(offer(ours(), plain.sdp)) == ["audio 30000 RTP/AVP 0 8 101"]


def test_an_unchanged_offer_gets_an_unchanged_answer() -> None:
    first = answer(secure(), ours())
    assert revise(first.sdp, answer(secure(), ours(version=2)).sdp) == first.sdp


def test_both_ends_of_our_own_agree() -> None:
    other = local(srtp="required", srtp_keys=KEYS[::-1], address="192.0.2.9")
    offered = offer(ours("required"))
    theirs = answer(offered, other)
    mine = conclude(offered, theirs.sdp, ours("required"))
    assert mine.srtp is not None
    assert theirs.srtp is not None
    assert (mine.srtp.ours, mine.srtp.theirs) == (theirs.srtp.theirs, theirs.srtp.ours)


def test_keys_are_in_no_representation_of_our_side() -> None:
    assert not any(key in repr(ours()) for key in KEYS)
