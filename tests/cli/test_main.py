"""The command as a whole: exit codes, one-line errors, help."""

import subprocess
import sys
from pathlib import Path

import pytest

from trunkline import __version__
from trunkline.cli import app, main
from trunkline.cli.doctor import LOOKS

from .conftest import Command


def test_version(trunkline: Command) -> None:
    assert trunkline("version") == (0, f"{__version__}\n", "")


def test_module_is_the_command() -> None:
    ran = subprocess.run([sys.executable, "-m", "trunkline", "version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, f"{__version__}\n")


@pytest.mark.parametrize("words", [["bogus"], ["numbers", "bogus"], ["numbers", "add"], ["version", "--bogus"]])
def test_wrong_use_is_one_line_and_exit_code_2(trunkline: Command, words: list[str]) -> None:
    ran = trunkline(*words)
    assert ran.code == 2
    assert ran.err.startswith("trunkline: ")
    assert ran.err.count("\n") == 1


def test_a_bare_group_prints_its_help(trunkline: Command) -> None:
    ran = trunkline("numbers")
    assert ran.code == 2
    assert "import" in ran.out
    assert not ran.err


def test_settings_errors_are_one_line_and_exit_code_1(trunkline: Command, tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_text("[server]\nprot = 1\n")
    ran = trunkline("routes", "show")
    assert (ran.code, ran.err) == (1, "trunkline: trunkline.toml: server.prot: no such setting; did you mean port?\n")


def test_a_command_without_data_says_so(trunkline: Command) -> None:
    ran = trunkline("accounts", "list")
    assert ran.code == 1
    assert "there is no data in" in ran.err


def test_defects_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    app.command("broken")(broken)
    try:
        with pytest.raises(ZeroDivisionError):
            main(["broken"])
    finally:
        app.registered_commands.pop()


def test_doctor_runs_every_check(trunkline: Command, account: str) -> None:
    ran = trunkline("doctor")
    assert ran.code == 0, ran
    table, findings = ran.out.split("\n\n")
    assert "accepted messages, callbacks owed\tQueue\tSQLite (WAL, synchronous=FULL)\tprocess, power\t" in table
    checks = {line.split("\t")[1] for line in findings.splitlines()[1:]}
    assert {"settings", "master key", "disk", "sync", "limits", "clock", "loopback"} <= checks
    assert len(LOOKS) == 6


def test_doctor_fails_where_a_carrier_cannot_be_reached(trunkline: Command, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "trunkline.toml").write_text(
        f'[[connectors]]\nkind = "smpp"\nname = "acme"\nhost = "127.0.0.1"\nport = {free_port}\nsystem_id = "me"\n'
        '[[connectors]]\nkind = "loopback"\nname = "spare"\n'
        '[[routes]]\nname = "all"\nconnector = "acme"\n'
    )
    ran = trunkline("doctor")
    assert ran.code == 1
    assert f"bad\tacme\t127.0.0.1:{free_port} cannot be reached: Connection refused" in ran.out
    assert "warn\troutes\tno route leads to the connector spare" in ran.out


def test_doctor_sees_a_bad_master_key(trunkline: Command, account: str, data: Path) -> None:
    (data / "master.key").write_text("short")
    ran = trunkline("doctor")
    assert ran.code == 1
    assert "bad\tmaster key\t" in ran.out
