"""Evidence cannot be changed, cut, forked or signed by another; gates read it."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trunkline.model.clock import SystemClock
from trunkline.postflight.archive import SegmentedArchive
from trunkline.release.evidence import BadEvidence, Records, check_chain, dump, parse
from trunkline.release.gates import gates, standing
from trunkline.release.people import BadKey, is_signed, may_approve, own_key, private_key, public_line, sign, statement
from trunkline.release.risk import load, shipped
from trunkline.storage.engines.sqlite.archive import SqliteRecent

from .repo import ADA, BO, WRITER, approvers, key_file

BASE, HEAD = "a" * 40, "b" * 40


@pytest.fixture
async def archive(tmp_path):
    made = SegmentedArchive(SqliteRecent(tmp_path / "archive.db"), tmp_path / "segments", SystemClock())
    yield made
    await made.close()


@pytest.fixture
def records(archive):
    return Records(archive, Ed25519PrivateKey.generate(), "integration", SystemClock().now_ms)


async def planned(records, name="handler", what=None):
    return [await records.plan(BASE, HEAD, name, WRITER, what or {})]


async def test_steps_come_back_in_their_order_and_the_newest_release_first(records):
    chain = await planned(records)
    for number in range(5):
        await records.add(chain, "passed", "x", {"number": number})
    other = await planned(records)
    assert await records.chain(chain[0].release) == chain
    assert [one.number for one in chain] == [1, 2, 3, 4, 5, 6]
    assert list(await records.all()) == [other[0].release, chain[0].release]
    assert await records.chain("RL" + "0" * 32) == []


async def test_a_chain_goes_to_the_next_environment_as_a_file(records):
    chain = await planned(records)
    await records.add(chain, "done", "x", {"ünicode": "é"})
    assert parse(dump(chain)) == chain


@pytest.mark.parametrize("how", ["changed", "cut", "swapped", "doubled", "resigned", "garbled", "empty"])
async def test_what_was_tampered_with_is_seen(records, how):
    chain = await planned(records)
    for status in ("failed", "passed", "done"):
        await records.add(chain, status, "x", {"check": "tests"})
    lines = dump(chain).splitlines()
    if how == "changed":
        lines[1] = lines[1].replace(b"failed", b"passed")
    elif how == "cut":
        del lines[1]
    elif how == "swapped":
        lines[1], lines[2] = lines[2], lines[1]
    elif how == "doubled":
        lines.insert(1, lines[1])
    elif how == "resigned":
        key = Ed25519PrivateKey.generate()
        bare = msgspec.structs.replace(chain[3], key=public_line(key), signature="")
        text = msgspec.json.encode(bare, order="sorted")
        lines[3] = msgspec.json.encode(msgspec.structs.replace(bare, signature=sign(key, text)), order="sorted")
    elif how == "garbled":
        lines[2] = b"{}"
    else:
        lines = []
    with pytest.raises(BadEvidence):
        parse(b"\n".join(lines))


async def test_two_writers_at_once_are_seen(records):
    chain = await planned(records)
    other = list(chain)
    await records.add(chain, "passed", "one", {})
    await records.add(other, "passed", "two", {})
    with pytest.raises(BadEvidence, match="forked"):
        await records.chain(chain[0].release)


async def test_another_environments_release_is_not_ours(archive, records):
    chain = await planned(records)
    stranger = Records(archive, Ed25519PrivateKey.generate(), "integration", SystemClock().now_ms)
    with pytest.raises(BadEvidence, match="another key"):
        await stranger.chain(chain[0].release)


async def test_an_abort_is_heard_and_is_no_step(records):
    chain = await planned(records)
    assert await records.asked_to_abort(chain[0].release) == ""
    await records.ask_to_abort(chain[0].release, "ops@example.com")
    assert await records.asked_to_abort(chain[0].release) == "ops@example.com"
    assert await records.asked_to_abort("RL" + "0" * 32) == ""
    assert await records.chain(chain[0].release) == chain


def told(risk, chain, authors=(WRITER,)):
    return {gate.name: gate.is_open for gate in gates(risk, chain, authors)}


async def test_gates_open_by_the_last_run_of_each_check(records):
    risk, chain = load(shipped()), await planned(records)
    assert told(risk, chain) == {"tests": False, "performance": False}
    await records.add(chain, "passed", "x", {"check": "tests"})
    await records.add(chain, "passed", "x", {"check": "performance"})
    assert told(risk, chain) == {"tests": True, "performance": True}
    await records.add(chain, "failed", "x", {"check": "tests"})
    assert told(risk, chain) == {"tests": False, "performance": True}
    assert standing(chain) == "open"


async def test_who_may_sign_and_for_what(records, tmp_path):
    ada, bo = key_file(tmp_path / "ada"), key_file(tmp_path / "bo")
    risk = load(shipped() + approvers(ada, bo))
    chain = await planned(records, "money")
    plan = chain[0]
    text = statement(plan.release, plan.environment, plan.base, plan.head, plan.risk_class)
    signed = {name: sign(private_key(tmp_path / name), text) for name in ("ada", "bo")}
    assert told(risk, chain)["approval"] is False
    await records.add(chain, "approved", ADA, {"signature": signed["ada"]})
    await records.add(chain, "approved", ADA, {"signature": signed["ada"]})
    assert told(risk, chain)["approval"] is False  # the same person twice is one
    await records.add(chain, "approved", BO, {"signature": signed["ada"]})
    assert told(risk, chain)["approval"] is False  # that is not Bo's signature
    await records.add(chain, "approved", WRITER, {"signature": signed["ada"]})
    assert told(risk, chain)["approval"] is False  # nobody signs off their own
    await records.add(chain, "approved", BO, {"signature": signed["bo"]})
    assert told(risk, chain)["approval"] is True
    assert told(risk, chain, (WRITER, ADA))["approval"] is False


def test_why_somebody_may_not_sign(tmp_path):
    line = key_file(tmp_path / "key")
    risk = load(shipped() + approvers(line, line))
    assert may_approve(risk, "Ada@Example.com", "api", (WRITER,)).name == "Ada"
    for email, name, authors, why in (
        ("eve@example.com", "api", (), "no \\[\\[approver\\]\\]"),
        (BO, "api", (), "may not approve changes of class api"),
        (WRITER, "api", (WRITER,), "nobody signs off their own"),
    ):
        with pytest.raises(BadKey, match=why):
            may_approve(risk, email, name, authors)


def test_keys(tmp_path):
    line = key_file(tmp_path / "key")
    key = private_key(tmp_path / "key")
    assert public_line(key) == line
    assert is_signed(line, b"x", sign(key, b"x"))
    assert not is_signed(line, b"y", sign(key, b"x"))
    assert not is_signed(line, b"x", "no base64!")
    own = own_key(tmp_path / "own")
    assert public_line(own_key(tmp_path / "own")) == public_line(own)
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o600
    (tmp_path / "bad").write_text("nothing")
    with pytest.raises(BadKey, match="no OpenSSH private key"):
        private_key(tmp_path / "bad")
    with pytest.raises(BadKey, match="no OpenSSH public key"):
        is_signed("ssh-ed25519 AAAA", b"x", "")


async def test_production_takes_only_what_was_done_in_staging(archive):
    records = Records(archive, Ed25519PrivateKey.generate(), "production", SystemClock().now_ms)
    risk, chain = load(shipped()), await planned(records, "content")
    assert told(risk, chain) == {"promotion": False}
    await records.add(chain, "promoted", "x", {"from": "integration", "release": "RL1"})
    assert told(risk, chain) == {"promotion": False}
    await records.add(chain, "promoted", "x", {"from": "staging", "release": "RL1"})
    assert told(risk, chain) == {"promotion": True}


def test_an_empty_chain_holds():
    check_chain([])
