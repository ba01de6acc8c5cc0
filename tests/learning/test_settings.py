"""What a learner is given of the settings."""

from pathlib import Path

import msgspec
import pytest

from trunkline.learning import candidates, run
from trunkline.learning.runs import CannotLearn
from trunkline.settings import Settings, SettingsError, Smpp, load
from trunkline.settings.load import overlaid

FILE = """
profile = "staging"
[security]
master_key = "key-of-everything"
[messaging]
max_segments = 7
[webhooks]
per_host = 9
[[connectors]]
name = "carrier"
kind = "smpp"
host = "smsc.example"
system_id = "trunkline"
password = "hush"
tls = true
default_alphabet = "latin1"
[[connectors]]
name = "web"
kind = "http"
url = "https://carrier.example/send?key=hush"
callback_token = "hush"
headers = { Authorization = "hush" }
[[routes]]
name = "all"
connector = "carrier"
prefixes = ["+1"]
price = "0.01"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "trunkline.toml"
    file.write_text(FILE)
    return file


def test_no_secret_is_handed_over_and_what_decides_is(file: Path) -> None:
    given = run.settings_for(load(file, {}))
    text = msgspec.json.encode(given).decode()
    for secret in ("hush", "key-of-everything", "smsc.example", "carrier.example"):
        assert secret not in text
    found = run.settings_of(msgspec.json.decode(text))
    carrier, web = found.connectors
    assert isinstance(carrier, Smpp)
    assert (carrier.host, carrier.default_alphabet, carrier.tls, carrier.binds) == ("127.0.0.1", "latin1", False, 1)
    assert (web.name, web.__struct_config__.tag) == ("web", "loopback")
    assert (found.messaging.max_segments, found.webhooks.per_host, found.messaging.long_code_mps) == (7, 9, 0)
    assert (found.routes[0].connector, str(found.routes[0].price)) == ("carrier", "0.01")
    assert found.security == Settings().security


def test_a_candidate_lies_over_the_file(file: Path) -> None:
    over = {
        "messaging": {"validity_s": 60},
        "connectors": [{"name": "carrier", "default_alphabet": "gsm7"}],
        "routes": [{"name": "new", "connector": "web"}],
    }
    found = load(file, {}, candidate=over)
    (carrier, web) = found.connectors
    assert isinstance(carrier, Smpp)
    assert (carrier.default_alphabet, carrier.password, web.name) == ("gsm7", "hush", "web")
    assert (found.messaging.max_segments, found.messaging.validity_s) == (7, 60)
    assert [route.name for route in found.routes] == ["new"]
    with pytest.raises(SettingsError, match="no such setting"):
        load(file, {}, candidate={"messaging": {"nonsense": 1}})


def test_nothing_over_is_nothing_changed() -> None:
    tree = {"routes": [{"name": "a"}], "messaging": {"queue_s": 1}}
    assert overlaid(tree, {}) == tree


def test_sides_differ_in_what_the_candidate_says(file: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.toml"
    new.write_text('[[routes]]\nname = "new"\nconnector = "web"\n')
    settings = load(file, {})
    given = ["smpp=carriers:Better", str(new)]
    (candidate, control), commit = candidates.sides(
        settings, given, None, [tmp_path], lambda tree: load(file, {}, candidate=tree)
    )
    assert candidate.settings["routes"][0]["name"] == "new"
    assert control.settings["routes"][0]["name"] == "all"
    assert (candidate.patches, candidate.path, control.patches) == (
        {"smpp": "carriers:Better"}, [str(tmp_path)], {},
    )  # fmt: skip
    assert commit == ""


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "no candidate"),
        (["nothing=a:b"], "with a NAME of router"),
        (["smpp=module"], "NAME=module:attribute"),
        (["absent.toml"], "cannot be read"),
    ],
)
def test_what_is_no_candidate_is_told(file: Path, given: list[str], why: str) -> None:
    with pytest.raises(CannotLearn, match=why):
        candidates.sides(load(file, {}), given, None, [], lambda tree: load(file, {}, candidate=tree))


@pytest.mark.parametrize(
    ("text", "why"),
    [("[server]\nport = 1\n", "server decides nothing"), ("", "says nothing"), ("[[", "not valid TOML")],
)
def test_a_candidate_file_says_what_can_be_learned(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "candidate.toml"
    file.write_text(text)
    with pytest.raises(CannotLearn, match=why):
        candidates.overlay(file)


def test_another_version_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(CannotLearn, match="no Trunkline that can learn"):
        candidates.sides(Settings(), [], tmp_path, [], lambda tree: Settings())
    root = Path(candidates.__file__).parents[3]
    (candidate, control), commit = candidates.sides(Settings(), [], root, [], lambda tree: Settings())
    assert candidate.path == [str(root / "src")]
    assert control.path == []
    assert len(commit) in (0, 40)
