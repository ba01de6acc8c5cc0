"""`serve` and `dev` hand their settings to the wiring; `dev` makes what one needs to try it."""

import socket

import pytest

from trunkline import bootstrap
from trunkline.settings import Settings

from .conftest import Command


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of each server that would have run."""
    handed: list[Settings] = []
    monkeypatch.setattr(bootstrap, "serve", handed.append, raising=False)
    return handed


def test_serve_uses_the_settings(trunkline: Command, served: list[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_SERVER_PORT", "1")
    assert trunkline("serve").code == 0
    assert [settings.server.port for settings in served] == [1]


def test_dev_makes_an_account_with_numbers_once(trunkline: Command, served: list[Settings]) -> None:
    first = trunkline("dev")
    assert first.code == 0, first.err
    assert trunkline("dev").out == first.out
    ((sid, _, status, *_),) = trunkline("accounts", "list").rows
    assert status == "active"
    assert [row[3] for row in trunkline("numbers", "list").rows] == [sid, sid]
    token = trunkline("accounts", "token", sid).out.strip()
    assert f"curl -u {sid}:{token} http://127.0.0.1:8080/2010-04-01/Accounts/{sid}/Messages.json" in first.out
    assert len(served) == 2


def test_dev_is_development_whatever_the_environment_says(
    trunkline: Command, served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_PROFILE", "production")
    assert trunkline("dev").code == 0
    assert served[0].profile == "development"


def test_a_port_that_is_taken_is_one_line(monkeypatch: pytest.MonkeyPatch, trunkline: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("TRUNKLINE_SERVER_PORT", str(taken.getsockname()[1]))
        with pytest.raises(SystemExit, match=r"^trunkline: cannot listen on .+: Address already in use"):
            trunkline("dev")
