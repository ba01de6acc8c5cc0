"""Sealing, hashing and where the master key comes from."""

import base64
import hmac
import stat

import pytest

from trunkline.storage.secrets import (
    ENVIRONMENT,
    KEY_FILE,
    BadMasterKey,
    CannotOpen,
    Secrets,
    load_secrets,
    parse_key,
    parse_keys,
    rotate_key_file,
)

OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)


def test_seal_and_open():
    secrets = Secrets([OLD])
    sealed = secrets.seal("päss", "accounts.auth_token:AC1")
    assert "päss" not in sealed
    assert secrets.open(sealed, "accounts.auth_token:AC1") == "päss"
    assert sealed != secrets.seal("päss", "accounts.auth_token:AC1")


def test_what_was_tampered_with_or_moved_does_not_open():
    secrets = Secrets([OLD])
    sealed = secrets.seal("secret", "here")
    flipped = sealed[:-8] + ("A" if sealed[-8] != "A" else "B") + sealed[-7:]
    for value, context in [
        (sealed, "there"), (flipped, "here"), (sealed[:30], "here"), ("", "here"), ("v1:x", "here"),
        ("v2" + sealed[2:], "here"), (sealed + "!", "here"),
    ]:  # fmt: skip
        with pytest.raises(CannotOpen):
            secrets.open(value, context)


def test_rotation_the_first_key_seals_and_all_open():
    old, both, new = Secrets([OLD]), Secrets([NEW, OLD]), Secrets([NEW])
    before, after = old.seal("s"), both.seal("s")
    assert both.open(before) == both.open(after) == new.open(after) == "s"
    assert (both.sealed_with_first(before), both.sealed_with_first(after)) == (False, True)
    for secrets, sealed in [(new, before), (old, after)]:
        with pytest.raises(CannotOpen):
            secrets.open(sealed)


def test_hashes_are_keyed_and_verify_over_a_rotation():
    old, both, new = Secrets([OLD]), Secrets([NEW, OLD]), Secrets([NEW])
    hashed = old.hash_secret("s3cret")
    assert len(bytes.fromhex(hashed)) == 32
    assert hashed == old.hash_secret("s3cret") == both.hash_secret("s3cret")
    assert hashed == hmac.new(both.pepper, b"s3cret", "sha256").hexdigest()
    assert old.verify_secret("s3cret", hashed)
    assert both.verify_secret("s3cret", hashed)
    assert not new.verify_secret("s3cret", hashed)
    assert not old.verify_secret("s3creT", hashed)
    assert not old.verify_secret("s3cret", "é")


@pytest.mark.parametrize(
    "text",
    [NEW.hex(), NEW.hex().upper(), base64.b64encode(NEW).decode(), base64.urlsafe_b64encode(NEW).decode().rstrip("=")],
)
def test_keys_in_hex_and_base64(text):
    assert parse_key(f" {text}\n") == NEW


def test_several_keys():
    assert parse_keys(f"{NEW.hex()},{base64.b64encode(OLD).decode()}\n{OLD.hex()}") == [NEW, OLD, OLD]


@pytest.mark.parametrize("text", ["", "short", "z" * 64, base64.b64encode(b"x" * 31).decode(), "é" * 44])
def test_bad_keys_are_refused(text):
    with pytest.raises(BadMasterKey):
        parse_key(text)


def test_no_key_and_too_many_are_refused():
    for keys in ([], [OLD] * 17, [b"short"]):
        with pytest.raises(BadMasterKey):
            Secrets(keys)


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path):
    sealed = load_secrets(tmp_path).seal("s")
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == [KEY_FILE]
    assert load_secrets(tmp_path).open(sealed) == "s"


def test_a_key_file_that_everyone_reads_is_refused(tmp_path):
    load_secrets(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(BadMasterKey, match="chmod"):
        load_secrets(tmp_path)


def test_settings_go_before_the_environment_and_both_before_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, OLD.hex())
    assert Secrets([OLD]).open(load_secrets(tmp_path).seal("s")) == "s"
    assert Secrets([NEW]).open(load_secrets(tmp_path, NEW.hex()).seal("s")) == "s"
    assert list(tmp_path.iterdir()) == []


def test_rotating_the_file_keeps_the_old_keys(tmp_path):
    before = load_secrets(tmp_path).seal("s")
    rotated = rotate_key_file(tmp_path)
    assert rotated.open(before) == load_secrets(tmp_path).open(before) == "s"
    assert not rotated.sealed_with_first(before)
    assert load_secrets(tmp_path).sealed_with_first(rotated.seal("s"))
