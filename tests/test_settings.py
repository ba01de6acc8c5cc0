"""Settings: layers, errors that say where and what, secrets, profiles, and the reference page."""

import ast
import typing
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from trunkline import settings
from trunkline.settings import reference
from trunkline.settings.load import environment_names, problems, sections

ROOT = Path(__file__).resolve().parents[1]
NO_READERS = ("reference.py", "sections.py", "connectors.py", "kinds.py", "voice_checks.py")
"""Files that name settings without going by them."""
CARRIER = """
[[connectors]]
kind = "smpp"
name = "acme"
host = "smsc.example"
system_id = "me"
password = "env:ACME_PASSWORD"
"""


@pytest.fixture
def file(tmp_path: Path) -> typing.Callable[..., settings.Settings]:
    def load(text: str, **environment: str) -> settings.Settings:
        path = tmp_path / "trunkline.toml"
        path.write_text(text or "# nothing\n")
        return settings.load(path, environment)

    return load


Load = typing.Callable[..., settings.Settings]


def test_nothing_is_needed_in_development(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings.load(environment={})
    assert found.profile == "development"
    assert found.data_path == tmp_path / "var"
    assert found.base_url == "http://127.0.0.1:8080"
    assert [type(one) for one in found.connectors] == [settings.Loopback]
    assert [(route.connector, route.prefixes) for route in found.routes] == [("loopback", ("",))]


def test_the_file_is_found_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trunkline.toml").write_text("[server]\nport = 99\n")
    assert settings.load(environment={}).server.port == 99


def test_layers_lie_over_one_another(file: Load, tmp_path: Path) -> None:
    text = 'profile = "integration"\n[server]\nport = 1\nkeep_alive_s = 9\n[data]\npath = "here"\n'
    found = file(text, TRUNKLINE_SERVER_PORT="2", TRUNKLINE_SERVER_TRUSTED_PROXIES="10.0.0.0/8, 127.0.0.1")
    assert (found.server.port, found.server.keep_alive_s) == (2, 9)
    assert found.server.trusted_proxies == ("10.0.0.0/8", "127.0.0.1")
    assert found.security.webhook_private_networks  # the profile's default
    assert found.data_path == tmp_path / "here"
    overridden = settings.load(tmp_path / "trunkline.toml", {}, {"server": {"port": 3}})
    assert overridden.server.port == 3


def test_secrets_come_from_the_environment_or_a_file(file: Load, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("from-file\n")
    found = file(CARRIER, ACME_PASSWORD="from-env")
    (carrier,) = found.connectors
    assert isinstance(carrier, settings.Smpp)
    assert carrier.password == "from-env"
    assert "from-env" not in repr(found)
    (carrier,) = file(CARRIER.replace("env:ACME_PASSWORD", "file:pw")).connectors
    assert isinstance(carrier, settings.Smpp)
    assert carrier.password == "from-file"


def test_a_referred_variable_may_have_our_prefix(file: Load) -> None:
    (carrier,) = file(CARRIER.replace("ACME_PASSWORD", "TRUNKLINE_ACME"), TRUNKLINE_ACME="x").connectors
    assert isinstance(carrier, settings.Smpp)
    assert carrier.password == "x"


@pytest.mark.parametrize(
    ("text", "environment", "error"),
    [
        ("[server]\nprot = 1", {}, "server.prot: no such setting; did you mean port?"),
        ("[sever]\nport = 1", {}, "sever: no such setting; did you mean server?"),
        ("source = 'x'", {}, "source: no such setting; did you mean storage?"),
        ("[server]\nport = 70000", {}, "server.port: expected int <= 65535, not 70000"),
        ("[server]\nport = '1'", {}, "server.port: expected int, not '1'"),
        ("server = 3", {}, "server: expected a table; write it as [server]"),
        ("[connectors]\nname = 'x'", {}, "connectors: expected tables; write each as [[connectors]]"),
        ("[[connectors]]\nkind = 'smp'", {}, "connectors[0].kind: 'smp' is none of smpp, http, "),
        ("[[connectors]]\nkind = 'smpp'\nname = 'a'", {}, "connectors[0]: host is missing; add it"),
        (
            "[[connectors]]\nkind = 'loopback'\nname = 'a'\nhost = 'x'",
            {},
            "connectors[0].host: no such setting; remove it",
        ),
        ("[[connectors]]\nkind = 'loopback'\nname = 'A b'", {}, "connectors[0].name: expected str matching regex"),
        (CARRIER, {}, "connectors[0].password: the secret's environment variable ACME_PASSWORD is not set; set it"),
        (CARRIER.replace("env:ACME", "file:no"), {}, "cannot be read (No such file or directory)"),
        (CARRIER * 2, {"ACME_PASSWORD": "x"}, "connectors: two are named acme; names must differ"),
        ("[[routes]]\nname = 'a'\nconnector = 'loopbak'", {}, "no connector loopbak; did you mean loopback?"),
        ("[[rates]]\nprefix = '+1'\nprice = '-1'", {}, "rates (+1): -1 is no amount; give zero or more"),
        ("[[rates]]\nprefix = '+1'\nprice = 'NaN'", {}, "rates (+1): NaN is no amount; give zero or more"),
        ("[server]\ntls_cert = 'x'", {}, "server.tls_key: tls_cert and tls_key go together; set both or neither"),
        ("[server]\ntls_cert = 'x'\ntls_key = 'y'", {}, "/x cannot be read; check the path and its mode"),
        ("[server]\npublic_url = 'sms.example'", {}, "is not like https://sms.example.com"),
        ("profile = 'prod'", {}, "'prod' is none of development, integration, staging, production"),
        ("[messaging]\nin_doubt = 'x'", {}, "messaging.in_doubt: must be prefer-duplicate or prefer-loss, not 'x'"),
        ("x =", {}, "not valid TOML: "),
        ("", {"TRUNKLINE_SERVER_PROT": "1"}, "did you mean TRUNKLINE_SERVER_PORT?"),
        ("", {"TRUNKLINE_SERVER_PORT": "x"}, "environment: TRUNKLINE_SERVER_PORT: expected int, not 'x'"),
        ("", {"TRUNKLINE_PROFILE": "production"}, "connectors: production needs a carrier"),
    ],
)
def test_mistakes_are_said_in_one_line(file: Load, text: str, environment: dict[str, str], error: str) -> None:
    with pytest.raises(settings.SettingsError) as caught:
        file(text, **environment)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_wrong_secret_is_not_shown(file: Load) -> None:
    text = CARRIER.replace('"env:ACME_PASSWORD"', "12345678")
    with pytest.raises(settings.SettingsError) as caught:
        file(text)
    assert "12345678" not in str(caught.value)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(settings.SettingsError, match=r"absent.toml: no such file; name an existing one"):
        settings.load(tmp_path / "absent.toml", {})


def test_a_file_that_lost_its_contents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_bytes(b"")
    with pytest.raises(settings.SettingsError, match=r"trunkline.toml: empty; restore it"):
        settings.load(tmp_path / "trunkline.toml", {})
    (tmp_path / "trunkline.toml").write_bytes(b"# all defaults are meant\n")
    assert settings.load(tmp_path / "trunkline.toml", {}).profile == "development"


@pytest.mark.parametrize(
    ("section", "error"),
    [
        ("", "security.master_key: production needs one; set TRUNKLINE_MASTER_KEY or file:PATH"),
        ("[security]\nwebhook_private_networks = true\nmaster_key = 'k'", "security.webhook_private_networks"),
    ],
)
def test_production_refuses_what_is_dangerous(file: Load, section: str, error: str) -> None:
    with pytest.raises(settings.SettingsError) as caught:
        file(f'profile = "production"\n{section}\n{CARRIER}', ACME_PASSWORD="x")
    assert error in str(caught.value)


def test_production_takes_a_real_carrier_and_refuses_loopback(file: Load) -> None:
    environment = {"ACME_PASSWORD": "x", "TRUNKLINE_MASTER_KEY": "k"}
    found = file(f'profile = "production"\n{CARRIER}', **environment)
    assert (found.security.master_key, found.server.host) == ("k", "0.0.0.0")
    assert not found.security.webhook_private_networks
    with pytest.raises(settings.SettingsError, match="loopback sends nothing"):
        file(f'profile = "production"\n{CARRIER}\n[[connectors]]\nkind = "loopback"\nname = "l"', **environment)


def test_amounts_are_exact(file: Load) -> None:
    (rate,) = file('[[rates]]\nprefix = "+1"\nprice = "0.0079"').rates
    assert rate.price == Decimal("0.0079")


def test_every_default_is_in_its_own_bounds() -> None:
    for kind in sections().values():
        built = kind()
        plain = msgspec.to_builtins(built, enc_hook=str)
        assert msgspec.convert(plain, kind, dec_hook=lambda kind, value: kind(value)) == built
    assert not list(problems(settings.load(environment={})))


def test_every_setting_can_be_given_by_the_environment() -> None:
    assert environment_names()["TRUNKLINE_SMPP_SERVER_PORT"] == ("smpp_server", "port")
    keys = sum(len(kind.__struct_fields__) for kind in sections().values())
    assert len(environment_names()) == keys + 1  # TRUNKLINE_MASTER_KEY


def test_reference_page_is_current_and_explains_every_key() -> None:
    assert (ROOT / "docs/reference/settings.md").read_text() == reference.page(), "run make docs"
    for kind in (
        *sections().values(), *settings.CONNECTORS.values(), settings.Route, settings.Rate, settings.Trunk,
    ):  # fmt: skip
        assert set(kind.__struct_fields__) == set(reference.field_texts(kind))


def test_every_setting_is_read_somewhere() -> None:
    """A setting that nothing reads is a promise that nothing keeps."""
    read: set[str] = set()
    for path in (ROOT / "src/trunkline").rglob("*.py"):
        if path.name not in NO_READERS:
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    kinds = (*sections().values(), *settings.CONNECTORS.values(), settings.Route, settings.Rate, settings.Trunk)
    unread = {f"{kind.__name__}.{name}" for kind in kinds for name in kind.__struct_fields__ if name not in read}
    assert not unread
