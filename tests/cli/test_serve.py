"""`serve` and `dev` hand their settings to the wiring; `dev` makes what one needs to try it."""

import socket

import pytest

from trunkline import bootstrap_serve, bootstrap_supervise
from trunkline.settings import Settings
from trunkline.sip.transport import bind

from .conftest import Command


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings of each server that would have run."""
    handed: list[Settings] = []
    monkeypatch.setattr(bootstrap_serve, "serve", handed.append, raising=False)
    monkeypatch.setattr(bootstrap_supervise, "wanted", lambda settings: False)
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


def test_dev_takes_calls_from_simulated_phones(trunkline: Command, served: list[Settings]) -> None:
    assert trunkline("dev").code == 0
    assert trunkline("dev", "--no-calls").code == 0
    with_calls, without = served
    assert with_calls.sip.enabled
    assert [(trunk.name, trunk.simulated) for trunk in with_calls.trunks] == [("simulated", True)]
    assert not without.sip.enabled
    assert without.trunks == ()


def test_dev_takes_another_sip_port_where_the_usual_one_is_taken(
    trunkline: Command, served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr("trunkline.cli.serve.bind", lambda host, port: bind(host, taken.getsockname()[1]))
        assert trunkline("dev").code == 0
    assert served[0].sip.port == 0


def test_dev_takes_calls_on_the_port_that_is_set(
    trunkline: Command, served: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_SIP_PORT", "5099")
    assert trunkline("dev").code == 0
    assert served[0].sip.enabled
    assert served[0].sip.port == 5099
