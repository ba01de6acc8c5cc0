"""Runs commands in this process, on a data folder of the test's own."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import ports
from trunkline.cli import main


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The lines of a printed table, without its head."""
        return [line.split("\t") for line in self.out.splitlines()[1:]]


Command = Callable[..., Ran]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def trunkline(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Call it with a command's words; `trunkline.toml` in the test's folder is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUNKLINE_CONFIG", raising=False)

    def run(*words: str) -> Ran:
        capsys.readouterr()
        code = main(["--data", str(data), *words])
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def account(trunkline: Command) -> str:
    """The SID of an account."""
    return trunkline("accounts", "create", "--name", "Acme").out.split()[1]


@pytest.fixture
def free_port() -> int:
    """An even port of this machine that nobody listens on, nor on the five after it."""
    return ports.free_port(span=6)
