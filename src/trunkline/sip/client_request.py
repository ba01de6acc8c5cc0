"""A request of ours other than INVITE: its transaction, and once more with credentials if it is challenged."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trunkline.sip.core import Credentials, HeaderList
from trunkline.sip.flow import Flow, Target, plan
from trunkline.sip.login import Login
from trunkline.sip.message import Request, Response
from trunkline.sip.requests import MAX_FORWARDS, renewed
from trunkline.sip.transaction import ClientTransaction

if TYPE_CHECKING:
    from trunkline.sip.stack import Stack

MAX_ATTEMPTS: Final = 10
"""Of one request: itself, and with credentials for each kind of challenge, stale nonces included."""
OnResponse = Callable[[int, Response | None], None]
"""Hears the final status and response; 408 (nobody answered) and 503 (it could not be sent) without a response."""


class ClientRequest:
    """One request and its retries. `next_cseq` gives the CSeq of each."""

    __slots__ = ("_fallback", "_hop", "_login", "_next_cseq", "_on_response", "_stack")

    def __init__(
        self,
        stack: "Stack",
        hop: Flow | Target,
        fallback: Target | None,
        login: Login | None,
        next_cseq: Callable[[], int],
        on_response: OnResponse,
    ) -> None:
        self._stack = stack
        self._hop = hop
        self._fallback = fallback
        self._login = login
        self._next_cseq = next_cseq
        self._on_response = on_response

    @classmethod
    def outside(
        cls,
        stack: "Stack",
        method: str,
        uri: str,
        to: str,
        from_: str,
        target: Flow | Target | None,
        headers: HeaderList,
        body: bytes,
        credentials: Credentials | None,
        on_response: OnResponse,
        *,
        call_id: str = "",
        cseq: int = 1,
    ) -> "ClientRequest":
        """One outside of dialogs, sent. Raises MalformedMessage for a URI that is none."""
        hop = target or plan((), uri)[2]
        login = None if credentials is None else Login(*credentials)
        numbers = iter(range(cseq, cseq + MAX_ATTEMPTS))
        exchange = cls(stack, hop, None, login, lambda: next(numbers), on_response)
        fields = [
            ("Max-Forwards", MAX_FORWARDS),
            ("From", f"{from_};tag={stack.token()}"),
            ("To", to),
            ("Call-ID", call_id or stack.token()),
            ("CSeq", f"{next(numbers)} {method}"),
            *headers,
        ]
        exchange.send(Request.make(method, uri, headers=fields, body=body))
        return exchange

    def send(self, request: Request) -> None:
        self._stack.start_client(request, self._hop, self._report, fallback=self._fallback)

    def _report(self, transaction: ClientTransaction, status: int, response: Response | None) -> None:
        if status < 200:
            return
        if self._login is not None and response is not None and status in (401, 407):
            request = transaction.request
            credentials = self._login.answer(request, response, self._stack.token())
            if credentials is not None:
                self.send(renewed(request, self._next_cseq(), credentials))
                return
        self._on_response(status, response)
