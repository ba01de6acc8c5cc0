"""What one node of a cluster does not know yet: it is looked for before a request is refused, and not otherwise."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.api.harness import CHILD, CHILD_TOKEN, CREDENTIALS, MAIN_KEY, PARENT, SECRET, TEST, TEST_TOKEN, Harness
from trunkline.api.limits import ApiLimits
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.unknown import MAX_LOOKED, Unknown
from trunkline.model.sid import new_sid

MESSAGES = "/2010-04-01/Accounts/{AccountSid}/Messages"
NUMBER = "+12025550100"


class Looking:
    """The database: what is hidden from the node comes to light when it is looked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.hidden: dict[str, Any] = {}

    async def sid(self, sid: str) -> None:
        self.asked.append(sid)
        if sid in self.hidden:
            self.hidden.pop(sid)()

    async def number(self, address: str) -> None:
        self.asked.append(address)

    async def senders(self, service_sid: str) -> None:
        self.asked.append(f"senders of {service_sid}")


async def answer(request: Request, services: Any) -> Response:
    return Response(200, request.account.sid.encode())


class Node(Harness):
    """One node's API."""

    def __init__(self, **options: Any) -> None:
        self.looking = Looking()
        self.known: set[str] = set()
        directory: Any = SimpleNamespace(
            account=lambda sid: self.directory.account(sid),
            api_key=lambda sid: self.directory.api_key(sid),
            application=self._find,
            service=self._find,
            senders=lambda sid: (1,) if f"senders of {sid}" in self.known else (),
            owned_sender=lambda account, address: self._find(address),
            sip=SimpleNamespace(trunk_of_sid=self._find),
        )
        routes = [Route("api", method, MESSAGES, answer) for method in ("GET", "POST")]
        super().__init__(routes, unknown=Unknown(directory, self.looking), **options)

    def _find(self, name: str) -> Any:
        return name if name in self.known else None

    def hide(self, records: dict[str, Any], sid: str) -> None:
        """Another node has made it."""
        record = records.pop(sid)

        def show() -> None:
            records[sid] = record
            self.directory.generation += 1

        self.looking.hidden[sid] = show


def at(account: str) -> str:
    return MESSAGES.format(AccountSid=account) + ".json"


@pytest.fixture
def node() -> Node:
    return Node(limits=ApiLimits(failed_logins=2))


async def test_who_is_known_is_not_looked_for(node: Node) -> None:
    assert (await node.get(at(PARENT))).status == 200
    assert (await node.get(at(CHILD))).status == 200
    assert node.looking.asked == []


async def test_a_new_account_logs_in_at_once(node: Node) -> None:
    node.hide(node.directory.accounts, CHILD)
    assert (await node.get(at(CHILD), auth=(CHILD, CHILD_TOKEN))).status == 200
    assert node.looking.asked == [CHILD]


async def test_a_new_subaccount_of_whoever_logs_in(node: Node) -> None:
    node.hide(node.directory.accounts, CHILD)
    assert (await node.get(at(CHILD))).status == 200
    assert CHILD in node.looking.asked


async def test_a_new_key(node: Node) -> None:
    node.hide(node.directory.keys, MAIN_KEY)
    assert (await node.get(at(PARENT), auth=(MAIN_KEY, SECRET))).status == 200


async def test_a_new_key_of_a_new_account(node: Node) -> None:
    node.hide(node.directory.accounts, PARENT)
    node.hide(node.directory.keys, MAIN_KEY)
    assert (await node.get(at(PARENT), auth=(MAIN_KEY, SECRET))).status == 200


async def test_new_test_credentials(node: Node) -> None:
    node.hide(node.directory.accounts, PARENT)
    node.looking.hidden[TEST] = node.looking.hidden.pop(PARENT)
    assert (await node.get(at(TEST), auth=(TEST, TEST_TOKEN))).code == 20008  # known, but not let in there


async def test_a_token_that_was_rotated(node: Node) -> None:
    def rotated() -> None:
        node.directory.accounts[PARENT].auth_token = "new"
        node.directory.generation += 1

    node.looking.hidden[PARENT] = rotated
    assert (await node.get(at(PARENT), auth=(PARENT, "new"))).status == 200
    assert (await node.get(at(PARENT), auth=CREDENTIALS)).status == 401


async def test_a_wrong_login_is_still_one_and_counts_once(node: Node) -> None:
    for _ in range(2):
        assert (await node.get(at(PARENT), auth=(PARENT, "wrong"))).status == 401
    assert (await node.get(at(PARENT), auth=(PARENT, "wrong"))).status == 429
    assert node.looking.asked == [PARENT, PARENT]


@pytest.mark.parametrize("auth", [None, ("nobody", "x"), ("AC123", "x"), ("AC" + "z" * 32, "x")])
async def test_junk_is_not_looked_for(node: Node, auth: tuple[str, str] | None) -> None:
    assert (await node.get(at("AC123"), auth=auth)).status == 401
    assert node.looking.asked == []


async def test_what_a_request_names_is_looked_for(node: Node) -> None:
    service, application = new_sid("MG"), new_sid("AP")
    fields = {"To": "+12025550199", "From": NUMBER, "MessagingServiceSid": service, "ApplicationSid": application}
    assert (await node.post(at(PARENT), fields)).status == 200
    assert node.looking.asked == [NUMBER, service, application]
    node.looking.asked.clear()
    node.known |= {service, application, NUMBER}
    await node.post(at(PARENT), fields)
    assert node.looking.asked == [f"senders of {service}"]
    node.looking.asked.clear()
    node.known.add(f"senders of {service}")
    await node.post(at(PARENT), fields)
    assert node.looking.asked == []


async def test_one_request_has_only_so_much_looked_for(node: Node) -> None:
    sids = [new_sid("MG") for _ in range(3 * MAX_LOOKED)]
    await node.post(at(PARENT), {"Sids": sids})
    assert node.looking.asked == sids[:MAX_LOOKED]


async def test_senders_that_are_no_numbers_are_not_looked_for(node: Node) -> None:
    for sender in ("ACME", "whatsapp:+12025550100", "client:bob", "", "+" + "1" * 30):
        await node.post(at(PARENT), {"From": sender})
    assert node.looking.asked == []
