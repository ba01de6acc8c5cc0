"""The feature matrix is current, and says what the code does."""

from pathlib import Path

from trunkline import features
from trunkline.api.resources import RESOURCES, all_routes
from trunkline.bootstrap import Node
from trunkline.features import Operation
from trunkline.settings import load

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_current() -> None:
    assert (ROOT / "docs/reference/features.md").read_text() == features.page(), "run make docs"


def test_every_operation_is_counted_once_but_those_that_only_refuse() -> None:
    assert len(all_routes()) - len(features.served()) == 1
    assert Operation("messaging", "POST", "/v1/Services/PreregisteredUsa2p") not in features.served()
    assert {name for name, _ in features.served().values()} == set(RESOURCES)


def test_what_is_served_exists_at_twilio() -> None:
    ours = {operation.path for operation in set(features.served()) - set(features.at_twilio())}
    assert ours == features.EXTENSIONS


def test_what_is_lacking_is_counted_by_resource() -> None:
    page = features.page()
    conferences = next(line for line in page.splitlines() if line.startswith("| Conferences |"))
    lacking = [one for one in features.at_twilio() if one.product == "api" and one.resource == "Conferences"]
    assert conferences == f"| Conferences | - | {len(lacking)} | - |"
    messages = next(line for line in page.splitlines() if line.startswith("| Messages |"))
    assert "GET POST DELETE `/2010-04-01/Accounts/{AccountSid}/Messages/{Sid}`" in messages
    assert messages.endswith("| - | `api/messages.py` |")


def test_resources_are_named_by_their_words() -> None:
    assert Operation("api", "GET", "/2010-04-01/Accounts/{}/Messages/{}/Media/{}").resource == "Messages/Media"
    assert Operation("api", "GET", "/2010-04-01/Accounts/{}").resource == "Accounts"
    assert Operation("messaging", "GET", "/v1/Services/{}").resource == "Services"


async def test_every_kind_of_callback_is_listed(tmp_path: Path) -> None:
    node = Node(load(environment={}, overrides={"data": {"path": str(tmp_path)}, "server": {"port": 0}}))
    await node.start()
    await node.stop()
    assert set(node.delivery._handlers) == set(features.WEBHOOKS)


def test_commands_of_groups_are_found() -> None:
    found = {command.words: command.text for command in features.commands()}
    assert "serve" in found
    assert "archive query" in found
    assert all(found.values()), "every command says what it does"
