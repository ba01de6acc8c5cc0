"""Accounts and keys by the command line."""

import fcntl
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from .conftest import Command


def test_create_prints_working_credentials(trunkline: Command, data: Path) -> None:
    ran = trunkline("accounts", "create", "--name", "Acme")
    assert ran.code == 0, ran.err
    fields = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in ran.out.splitlines())
    assert re.fullmatch(r"AC[0-9a-f]{32}", fields["sid"])
    assert re.fullmatch(r"[0-9a-f]{32}", fields["auth_token"])
    assert fields["owner"] == fields["sid"]
    assert data.stat().st_mode & 0o077 == 0
    assert trunkline("accounts", "token", fields["sid"]).out.strip() == fields["auth_token"]


def test_list_and_show(trunkline: Command, account: str) -> None:
    sub = trunkline("accounts", "create", "--name", "Sub", "--parent", account).out.split()[1]
    rows = trunkline("accounts", "list").rows
    assert [row[:4] for row in rows] == [[account, "Acme", "active", account], [sub, "Sub", "active", account]]
    shown = trunkline("accounts", "show", account).out
    token = trunkline("accounts", "token", account).out.strip()
    assert token not in shown
    assert token in trunkline("accounts", "show", account, "--reveal").out


def test_states(trunkline: Command, account: str) -> None:
    assert trunkline("accounts", "suspend", account).out == f"{account} is suspended\n"
    assert trunkline("accounts", "activate", account).out == f"{account} is active\n"
    assert trunkline("accounts", "close", account).out == f"{account} is closed\n"
    ran = trunkline("accounts", "activate", account)
    assert (ran.code, ran.err) == (1, f"trunkline: {account} is closed: a closed account stays closed\n")


def test_credit_is_exact(trunkline: Command, account: str) -> None:
    trunkline("accounts", "credit", account, "20.10")
    assert trunkline("accounts", "credit", account, "0.2").out == f"{account} has paid in 20.30 USD\n"
    assert trunkline("accounts", "credit", account, "--", "-0.3").out == f"{account} has paid in 20.00 USD\n"


@pytest.mark.parametrize("amount", ["ten", "NaN", "Infinity"])
def test_credit_refuses_what_is_no_amount(trunkline: Command, account: str, amount: str) -> None:
    ran = trunkline("accounts", "credit", account, amount)
    assert (ran.code, ran.err) == (1, f"trunkline: {amount} is no decimal amount, like 20 or -1.50\n")


def test_tokens_rotate_in_two_steps(trunkline: Command, account: str) -> None:
    first = trunkline("accounts", "token", account).out
    assert trunkline("accounts", "token", account, "--promote").code == 1
    second = trunkline("accounts", "token", account, "--secondary").out
    assert trunkline("accounts", "token", account).out == first != second
    assert trunkline("accounts", "token", account, "--promote").out == second
    assert trunkline("accounts", "token", account).out == second


@pytest.mark.parametrize("sid", ["AC" + "0" * 32, "nonsense", ""])
def test_unknown_accounts_are_refused(trunkline: Command, account: str, sid: str) -> None:
    ran = trunkline("accounts", "suspend", sid)
    assert ran.code == 1
    assert "there is no account" in ran.err


def test_the_limit_on_accounts_holds(trunkline: Command, account: str, tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_text("[limits]\naccounts = 1\n")
    ran = trunkline("accounts", "create")
    assert (ran.code, ran.err) == (1, "trunkline: limits.accounts (1) is reached: raise it first\n")


def test_keys(trunkline: Command, account: str) -> None:
    sid, secret = trunkline("keys", "create", account, "--name", "ci").out.split()
    main = trunkline("keys", "create", account, "--main").out.split()[0]
    assert re.fullmatch(r"SK[0-9a-f]{32} [0-9a-f]{32}", f"{sid} {secret}")
    assert trunkline("keys", "list", account).rows == [[sid, "ci", "standard"], [main, "", "main"]]
    assert trunkline("keys", "delete", sid).code == 0
    assert trunkline("keys", "delete", sid).err == f"trunkline: there is no key {sid}: see `trunkline keys list`\n"
    assert [row[0] for row in trunkline("keys", "list", account).rows] == [main]


def test_secrets_do_not_lie_in_clear_on_disk(trunkline: Command, account: str, data: Path) -> None:
    token = trunkline("accounts", "token", account).out.strip()
    _, secret = trunkline("keys", "create", account).out.split()
    for file in data.iterdir():
        content = file.read_bytes()
        assert token.encode() not in content
        assert secret.encode() not in content


def test_smpp_credentials(trunkline: Command, account: str) -> None:
    def fields(*options: str) -> dict[str, str]:
        ran = trunkline("accounts", "smpp", account, *options)
        assert ran.code == 0, ran.err
        return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in ran.out.splitlines())

    assert fields()["system_id"] == "none"
    assert trunkline("accounts", "smpp", account, "--binds", "3").code == 1, "no system_id yet"
    first = fields("--system-id", "acme")
    assert re.fullmatch(r"[A-Za-z0-9]{8}", first["password"])
    assert fields("--binds", "4") == {**first, "binds": "4"}
    assert fields() == {**first, "binds": "4"}
    assert fields("--new-password")["password"] != first["password"]
    other = trunkline("accounts", "create").out.split()[1]
    ran = trunkline("accounts", "smpp", other, "--system-id", "acme")
    assert (ran.code, ran.err) == (1, "trunkline: the system_id acme is another account's\n")
    assert trunkline("accounts", "smpp", account, "--system-id", "x" * 16).code == 1
    assert fields("--off")["system_id"] == "none"
    assert trunkline("accounts", "smpp", other, "--system-id", "acme").code == 0, "free again"


def test_limit_and_retention_are_set_and_taken_back(trunkline: Command, account: str) -> None:
    ran = trunkline("accounts", "limit", account, "--mps", "30")
    assert ran.out == f"{account} sends 30 segments a second at most\n"
    assert trunkline("accounts", "retention", account, "--days", "90").out == f"{account} keeps messages for 90 days\n"
    shown = re.sub(" +", " ", trunkline("accounts", "show", account).out)
    assert "retention_days 90\n" in shown
    assert "messages_per_second 30\n" in shown
    trunkline("accounts", "limit", account, "--mps", "0")
    trunkline("accounts", "retention", account, "--days", "0")
    shown = re.sub(" +", " ", trunkline("accounts", "show", account).out)
    assert "messages_per_second no limit of its own\n" in shown
    assert "retention_days as archive.retention_days says\n" in shown
    assert trunkline("accounts", "limit", account, "--mps", "-1").code == 2


def sealing_keys(data: Path) -> set[str]:
    """Ids of the master keys that seal the accounts' tokens, as they lie in the file."""
    with closing(sqlite3.connect(data / "database.db")) as connection:
        return {row[0].split(":")[1] for row in connection.execute("select auth_token from accounts")}


def test_master_key_is_rotated_and_everything_still_opens(trunkline: Command, account: str, data: Path) -> None:
    token = trunkline("accounts", "token", account).out
    sid, _ = trunkline("keys", "create", account).out.split()
    (before,) = sealing_keys(data)
    (old,) = (data / "master.key").read_text().split()
    ran = trunkline("keys", "rotate-master")
    assert (ran.code, ran.out) == (0, "1 records are sealed with the first master key now\n"), ran.err
    (after,) = sealing_keys(data)
    assert after != before
    new, kept = (data / "master.key").read_text().split()
    assert new != kept == old
    assert trunkline("accounts", "token", account).out == token
    assert trunkline("keys", "list", account).rows[0][0] == sid


def test_configured_master_keys_are_taken_as_they_are(
    trunkline: Command, account: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = trunkline("accounts", "token", account).out
    (before,) = sealing_keys(data)
    file = (data / "master.key").read_text()
    monkeypatch.setenv("TRUNKLINE_MASTER_KEY", f"{'ab' * 32},{file.strip()}")
    assert trunkline("keys", "rotate-master").code == 0
    assert sealing_keys(data) != {before}
    assert (data / "master.key").read_text() == file
    assert trunkline("accounts", "token", account).out == token


def test_master_key_is_not_rotated_under_a_server(trunkline: Command, account: str, data: Path) -> None:
    file = (data / "master.key").read_text()
    with (data / "server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ran = trunkline("keys", "rotate-master")
    assert ran.code == 1
    assert "another server runs" in ran.err
    assert (data / "master.key").read_text() == file
