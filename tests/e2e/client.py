"""The REST API as an account uses it, over plain HTTP."""

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import aiohttp

from tests.e2e.server import Server
from trunkline.model.account import Account

SETTLE_S = 60.0
POLL_S = 0.02
TIMEOUT = aiohttp.ClientTimeout(total=90)


class Answer(NamedTuple):
    """A response whole."""

    status: int
    body: bytes
    json: Any
    headers: Mapping[str, str]


class Client:
    """One account's."""

    def __init__(self, session: aiohttp.ClientSession, server: Server, account: Account) -> None:
        self._session = session
        self._server = server
        self.account = account
        login = base64.b64encode(f"{account.sid}:{account.auth_token}".encode()).decode()
        self._login = {"Authorization": f"Basic {login}"}

    async def call(self, method: str, path: str, form: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        """A request; `path` is absolute, or below the account."""
        if not path.startswith("/"):
            path = f"/2010-04-01/Accounts/{self.account.sid}/{path}"
        async with self._session.request(
            method, self._server.base_url + path, data=form, headers={**self._login, **(headers or {})}, timeout=TIMEOUT
        ) as response:
            body = await response.read()
            is_json = response.content_type == "application/json" and body
            return Answer(response.status, body, await response.json() if is_json else None, dict(response.headers))

    async def send(self, **form: str) -> dict[str, Any]:
        """Create a message: `From` is written `from_`."""
        answer = await self.call("POST", "Messages.json", {_field(name): value for name, value in form.items()})
        assert answer.status == 201, answer.body
        return answer.json

    async def message(self, sid: str) -> dict[str, Any]:
        """Fetch a message."""
        answer = await self.call("GET", f"Messages/{sid}.json")
        assert answer.status == 200, answer.body
        return answer.json

    async def settled(self, sid: str, status: str = "delivered") -> dict[str, Any]:
        """The message once it has this status."""
        return await until(lambda: self.message(sid), lambda message: message["status"] == status)

    async def phone(self, number: str, after: int = 0, wait_s: float = 10) -> list[dict[str, Any]]:
        """What a simulated phone has received after its first `after` messages, at whichever node."""
        path = f"/_simulator/handsets/{number}/messages"
        if len(self._server.addresses) == 1:
            return (await self.call("GET", f"{path}?after={after}&wait_s={wait_s:g}")).json["messages"]
        end = asyncio.get_running_loop().time() + wait_s
        while True:
            found: list[dict[str, Any]] = []
            for address in self._server.addresses:
                async with self._session.get(f"{address}{path}?wait_s=0", timeout=TIMEOUT) as response:
                    found += (await response.json())["messages"]
            if len(found) > after or asyncio.get_running_loop().time() > end:
                return found[after:]
            await asyncio.sleep(POLL_S)

    async def phone_sends(self, number: str, to: str, body: str) -> None:
        """A simulated phone sends a message to one of the platform's numbers."""
        path = f"{self._server.base_url}/_simulator/handsets/{number}/messages"
        async with self._session.post(path, json={"to": to, "body": body}, timeout=TIMEOUT) as response:
            assert response.status == 201, await response.text()


def _field(name: str) -> str:
    return "".join(part.capitalize() for part in name.rstrip("_").split("_"))


async def until(ask: Callable[[], Any], good: Callable[[Any], bool], timeout_s: float = SETTLE_S) -> Any:
    """Ask again and again until the answer is good."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not good(answer := await ask()):
        assert asyncio.get_running_loop().time() < deadline, f"still {answer!r:.2000}"
        await asyncio.sleep(POLL_S)
    return answer
