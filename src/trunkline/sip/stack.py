"""The SIP stack without I/O, clock or randomness: messages in, messages out, timers as data (RFC 3261).

Theory of operation. `receive` finds what a message belongs to, in this order: its transaction (a retransmission, or a
response), its dialog, a call that we are placing, nothing. What belongs to nothing is checked and given to the `Core`.
Errors before that are answered without keeping anything (section 8.2.7), so that strangers cannot fill our tables.
`tick` fires the timers that are due; `timeout` says when that is, and `timers.earlier` when it moves forward.

Nothing in here grows without a bound: transactions have a limit and end by timers, dialogs and calls exist only
because our user made them, and everything else hangs on one of these.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final
from zlib import crc32

from trunkline.sip.body import session_description
from trunkline.sip.client_invite import ClientInvite
from trunkline.sip.client_request import ClientRequest, OnResponse
from trunkline.sip.core import (
    DIALOG_METHODS,
    KNOWN_METHODS,
    SDP_TYPE,
    Answer,
    CallListener,
    Core,
    Credentials,
    DialogListener,
    HeaderList,
    StackConfig,
)
from trunkline.sip.dialog import Dialog, DialogState
from trunkline.sip.flow import DEFAULT_PORT, Address, Flow, Target, bracketed, is_inside, is_numeric
from trunkline.sip.headers import Field, NameAddr
from trunkline.sip.incoming import (
    URI_SCHEMES,
    Key,
    default_answer,
    lacking,
    mark_source,
    merge_key,
    reachable,
    response_flows,
    server_key,
)
from trunkline.sip.message import REASONS, MalformedMessage, Request, Response, parse
from trunkline.sip.requests import BRANCH_COOKIE
from trunkline.sip.server_invite import ServerInvite
from trunkline.sip.stateless import register_answer
from trunkline.sip.timers import Timers
from trunkline.sip.transaction import ClientTransaction, Event, Lingering, Report, ServerTransaction, State

logger = logging.getLogger(__name__)

MAX_TICK: Final = 2000  # timers fired by one `tick`, so that it never starves the network
MAX_CONTACTS: Final = 1000  # local addresses whose Contact is kept ready
MAX_UDP_ONLY: Final = 1000  # targets remembered for not taking TCP
UDP_ONLY_S: Final = 600.0  # how long
_ACKED_FAILURE: Final = frozenset({State.COMPLETED, State.CONFIRMED})


class Stack:
    """See the module's text. `metrics` are counters for reading; `trace`, if set, is told (Call-ID, sent by us, start
    line) of each message but retransmissions; `on_flow_closed`, if set, of connections that have closed. `local` says
    which of our addresses a peer reaches us at."""

    def __init__(
        self,
        config: StackConfig,
        send: Callable[[bytes, Flow], bool],
        now: Callable[[], float],
        token: Callable[[], str],
        core: Core,
    ) -> None:
        self.config = config
        self.timing = config.timing
        self.now = now
        self.token = token
        self.core = core
        self.timers = Timers()
        self.local: Callable[[str, str], Address] = self._configured
        self.trace: Callable[[str, bool, str], None] | None = None
        self.is_inside: Callable[[str, str], bool] = is_inside  # where peers outside may not aim (name, address)
        self.advertised: Callable[[str], str] | None = None
        """Our host as Via and Contact name it towards a peer, where that is another than `config.host`; else empty."""
        self.on_flow_closed: Callable[[Flow], None] | None = None
        self.metrics: dict[str, int] = {}
        self._send = send
        self._server: dict[Key, ServerTransaction] = {}
        self._client: dict[Key, ClientTransaction] = {}
        self.lingering = Lingering()
        self._merged: dict[Key, ServerTransaction | None] = {}  # None: of a dialog that was adopted
        self._dialogs: dict[Key, Dialog] = {}
        self._calls: dict[Key, ClientInvite] = {}  # by Call-ID and our tag, while there is no answer
        self._early: dict[Key, ServerInvite] = {}  # by Call-ID, our tag and the caller's, while it rings
        self._by_flow: dict[tuple[str, Address, int, str, bool], set[ClientTransaction]] = {}
        self._contacts: dict[tuple[str, Address, bool], str] = {}
        self._udp_only: dict[Address, float] = {}
        self.client_headers: list[Field] = [("User-Agent", config.user_agent)] if config.user_agent else []
        self._server_headers: list[Field] = [("Server", config.user_agent)] if config.user_agent else []

    # --- for the owner

    @property
    def transactions(self) -> int:
        """Transactions alive, both sides."""
        return len(self._server) + len(self._client)

    @property
    def dialogs(self) -> int:
        return len(self._dialogs)

    @property
    def calls(self) -> int:
        """INVITEs of ours without an answer."""
        return len(self._calls)

    def receive(self, data: bytes | Request | Response | MalformedMessage, flow: Flow) -> None:
        """Take one message. Never raises."""
        try:
            message = parse(data) if isinstance(data, bytes) else data
            if isinstance(message, Request):
                self._receive_request(message, flow)
            elif isinstance(message, Response):
                self._receive_response(message, flow)
            else:
                self._malformed(message, flow)
        except MalformedMessage as error:
            self._malformed(error, flow)
        except Exception:
            self.count("errors")
            logger.exception("SIP message from %s failed", flow.remote)

    def timeout(self) -> float | None:
        """Seconds until `tick` is wanted (0: now), None without timers."""
        due = self.timers.due()
        return None if due is None else max(0.0, due - self.now())

    def tick(self) -> None:
        """Fire what is due. Never raises."""
        now = self.now()
        for _ in range(MAX_TICK):
            call = self.timers.pop(now)
            if call is None:
                return
            try:
                call()
            except Exception:
                self.count("errors")
                logger.exception("SIP timer failed")

    def flow_closed(self, flow: Flow) -> None:
        """A connection closed, could not be made, or its host name is unknown: requests under way on it fail."""
        for transaction in list(self._by_flow.get(flow.path, ())):
            transaction.flow_failed()
        if flow.id and self.on_flow_closed is not None:
            self.on_flow_closed(flow)

    def invite(
        self,
        uri: str,
        *,
        to: str = "",
        from_: NameAddr | str,
        target: Flow | Target | tuple[str, str, int] | None = None,
        sdp: bytes,
        headers: HeaderList = (),
        credentials: Credentials | None = None,
        routes: Sequence[str] = (),
        listener: CallListener,
        timeout_s: float | None = None,
        session_s: int | None = None,
    ) -> ClientInvite:
        """Place a call. `sdp` empty: a late offer. `target` overrides where the URI or the routes lead, `session_s` the
        session interval that is asked for (0: none).

        Raises MalformedMessage for a URI or route that is none. All else is told to the listener, later.
        """
        invite = ClientInvite(self, uri, to or f"<{uri}>", str(from_), list(routes), credentials, listener)
        invite.session_s = self.config.session_expires_s if session_s is None else session_s
        invite.start(target if target is None or isinstance(target, Flow) else Target(*target), sdp, headers, timeout_s)
        return invite

    def request(
        self,
        method: str,
        uri: str,
        *,
        to: str = "",
        from_: NameAddr | str,
        target: Flow | Target | tuple[str, str, int] | None = None,
        headers: HeaderList = (),
        body: bytes = b"",
        credentials: Credentials | None = None,
        call_id: str = "",
        cseq: int = 1,
        on_response: OnResponse,
    ) -> ClientRequest:
        """Send a request outside of dialogs (OPTIONS, REGISTER...); `on_response` hears its final response once. A
        refreshed registration repeats its `call_id` with a higher `cseq` (RFC 3261 section 10.2)."""
        hop = target if target is None or isinstance(target, Flow) else Target(*target)
        return ClientRequest.outside(
            self, method, uri, to or f"<{uri}>", str(from_), hop, headers, body, credentials, on_response,
            call_id=call_id, cseq=cseq,
        )  # fmt: skip

    def adopt(self, state: DialogState, listener: DialogListener, credentials: Credentials | None = None) -> Dialog:
        """Go on with a dialog that another process exported. Its CSeq jumps, for what was sent since the export."""
        dialog = Dialog.adopted(self, state, listener, credentials)
        if state.invite_key:
            # The caller may still repeat the INVITE: the transaction that would absorb it died with the process.
            self._merged.setdefault(state.invite_key, None)
            self.timers.set(self.now() + self.timing.give_up, lambda: self._forget_merged(state.invite_key))
        return dialog

    def withdraw(self, invite: bytes, flow: Flow) -> None:
        """Cancel an INVITE that another process sent (`ClientInvite.sent`) and that rang there; whoever has picked up
        meanwhile is hung up on. Raises MalformedMessage."""
        request = parse(invite)
        assert isinstance(request, Request)
        ClientInvite.resumed(self, request, flow).cancel()

    # --- for transactions, dialogs and calls

    def count(self, name: str) -> None:
        self.metrics[name] = self.metrics.get(name, 0) + 1

    def transmit(self, data: bytes, flow: Flow) -> bool:
        """Hand bytes to the transport; False if the flow is gone."""
        return self._send(data, flow)

    def traced(self, call_id: str, sent: bool, line: str) -> None:
        if self.trace is not None:
            self.trace(call_id, sent, line)

    def contact(self, flow: Flow, secure: bool = False) -> str:
        """Our Contact on a flow; `secure`: a SIPS URI, as the answer to one has it (RFC 3261 section 12.1.1)."""
        key = flow.transport, flow.local, secure
        contact = self._contacts.get(key) if self.advertised is None else None
        if contact is None:
            if len(self._contacts) >= MAX_CONTACTS:
                self._contacts.clear()
            transport = "" if flow.transport == "UDP" or secure else f";transport={flow.transport.lower()}"
            contact = self._contacts[key] = f"<{'sips' if secure else 'sip'}:{self.sent_by(flow)}{transport}>"
        return contact

    def sent_by(self, flow: Flow) -> str:
        """Our host and port as a Via on this flow names them."""
        host, port = flow.local
        towards = self.advertised(flow.remote[0]) if self.advertised is not None else ""
        return f"{bracketed(towards or self.config.host or host)}:{self.config.port or port}"

    def reply(
        self,
        transaction: ServerTransaction,
        request: Request,
        status: int,
        reason: str = "",
        *,
        to_tag: str = "",
        headers: HeaderList = (),
        body: bytes = b"",
    ) -> bytes:
        """Respond in a transaction; returns the bytes."""
        data = self.response(request, status, reason, to_tag, headers, body)
        self.traced(request.call_id, True, f"{status} {reason or REASONS.get(status, '')}")
        transaction.respond(data, status)
        return data

    def response(
        self, request: Request, status: int, reason: str, to_tag: str, headers: HeaderList, body: bytes = b""
    ) -> bytes:
        """The bytes of a response."""
        fields = [*self._server_headers, *headers]
        return Response.make(request, status, reason, to_tag=to_tag, headers=fields, body=body).encode()

    def start_client(
        self,
        request: Request,
        hop: Flow | Target,
        report: Report,
        *,
        fallback: Target | None = None,
        branch: str = "",
    ) -> ClientTransaction:
        """Send a request in a transaction of its own. `fallback`: where to connect if the flow turns out closed.

        An empty `branch` makes one; a CANCEL brings its INVITE's with the Via.
        """
        flow = hop if isinstance(hop, Flow) else self.flow_to(hop)
        reserve = None if fallback is None else self.flow_to(fallback)
        if not branch:
            branch = BRANCH_COOKIE + self.token()
            request.headers.prepend("Via", self._via(flow, branch))
        if isinstance(hop, Target) and not hop.transport:
            flow, reserve = self._by_size(request, flow, branch)
        transaction = ClientTransaction(self, (branch, request.method), flow, request, report, reserve)
        self._client[transaction.key] = transaction
        self._track(transaction)
        if self.trace is not None:
            self.trace(request.call_id, True, f"{request.method} {request.uri}")
        if self.transactions > self.config.max_transactions and request.method == "INVITE":
            self.count("overload")
            self.timers.set(self.now(), lambda: transaction.fire(Event.ERROR))
        else:
            transaction.start()
        return transaction

    def prepare_ack(self, request: Request, hop: Flow | Target) -> tuple[bytes, Flow]:
        """The bytes of the ACK of a 2xx, which is no transaction, and where they go."""
        flow = hop if isinstance(hop, Flow) else self.flow_to(hop)
        request.headers.prepend("Via", self._via(flow, BRANCH_COOKIE + self.token()))
        return request.encode(), flow

    def resume_client(self, request: Request, flow: Flow, report: Report) -> ClientTransaction:
        """The transaction of an INVITE that another process sent, after a provisional response."""
        transaction = ClientTransaction(self, (request.via.branch, request.method), flow, request, report, None)
        transaction.state = State.PROCEEDING
        self._client[transaction.key] = transaction
        self._track(transaction)
        return transaction

    def move(self, transaction: ClientTransaction, flow: Flow) -> None:
        """A request goes on over another flow; if that is UDP, its peer does not take TCP (section 18.1.1)."""
        if flow.transport == "UDP":
            if len(self._udp_only) >= MAX_UDP_ONLY:
                self._udp_only.clear()
            self._udp_only[flow.remote] = self.now() + UDP_ONLY_S
        self._untrack(transaction)
        transaction.flow = flow
        transaction.request.headers.set("Via", self._via(flow, transaction.key[0]))
        self._track(transaction)

    def forget_server(self, transaction: ServerTransaction) -> None:
        self.lingering.discard(transaction)
        self._server.pop(transaction.key, None)
        if transaction.merge_key is not None:
            self._merged.pop(transaction.merge_key, None)

    def forget_client(self, transaction: ClientTransaction) -> None:
        self._client.pop(transaction.key, None)
        self._untrack(transaction)

    def add_dialog(self, dialog: Dialog) -> None:
        self._dialogs[dialog.key] = dialog

    def flows_of_dialogs(self) -> set[int]:
        """The numbers of the connections that calls use."""
        return {dialog.flow.id for dialog in self._dialogs.values() if dialog.flow.id}

    def forget_dialog(self, dialog: Dialog) -> None:
        if self._dialogs.get(dialog.key) is dialog:
            del self._dialogs[dialog.key]

    def find_dialog(self, call_id: str, local_tag: str, remote_tag: str) -> Dialog | None:
        """A dialog that is up, by what names it (RFC 3891 section 3)."""
        return self._dialogs.get((call_id, local_tag, remote_tag))

    def add_early(self, key: Key, invite: ServerInvite) -> None:
        self._early[key] = invite

    def forget_early(self, key: Key) -> None:
        self._early.pop(key, None)

    def add_call(self, key: Key, call: ClientInvite) -> None:
        self._calls[key] = call

    def forget_call(self, key: Key) -> None:
        self._calls.pop(key, None)

    # --- requests

    def _receive_request(self, request: Request, flow: Flow) -> None:
        via = request.via
        key = server_key(request, via)
        transaction = self._server.get(key)
        dialog = self._dialogs.get((request.call_id, request.to_tag, request.from_tag)) if request.to_tag else None
        if request.method == "ACK":
            self._receive_ack(request, transaction, dialog)
        elif transaction is not None:
            self.count("retransmissions_received")
            transaction.fire(Event.REQUEST)
        elif dialog is None and not self.core.permitted(request, flow):
            self.count("dropped")
        else:
            self.count("requests")
            self.traced(request.call_id, False, f"{request.method} {request.uri}")
            mark_source(request, via, flow)
            if self.transactions >= self.config.max_transactions and request.method not in ("BYE", "CANCEL"):
                self.count("overload")
                self._refuse(request, flow, 503, [("Retry-After", str(self.config.retry_after_s))])
            elif request.method == "CANCEL":
                self._receive_cancel(request, key, flow)
            elif dialog is not None:
                self._receive_in_dialog(request, dialog, key, flow)
            else:
                self._receive_new(request, key, flow)

    def _receive_ack(self, request: Request, transaction: ServerTransaction | None, dialog: Dialog | None) -> None:
        if transaction is not None and transaction.state in _ACKED_FAILURE:
            transaction.fire(Event.ACK)
        elif dialog is not None:
            dialog.receive_ack(request)
        else:
            self.count("stray")

    def _receive_cancel(self, request: Request, key: Key, flow: Flow) -> None:
        """RFC 3261 section 9.2."""
        invited = self._server.get((*key[:-1], "INVITE"))
        if invited is None:
            self._refuse(request, flow, 481)
            return
        self.reply(self._open(request, key, flow), request, 200, to_tag=invited.to_tag)
        invite = invited.invite
        if isinstance(invite, ServerInvite):
            self._guard(lambda: invite.cancelled(request))

    def _receive_in_dialog(self, request: Request, dialog: Dialog, key: Key, flow: Flow) -> None:
        if self._lacks(request, flow):
            return
        transaction = self._open(request, key, flow)
        self._guard(lambda: dialog.receive(request, transaction, flow))
        if transaction.state in (State.TRYING, State.PROCEEDING):  # what the listener raised left it unanswered
            self.reply(transaction, request, 500, to_tag=self._tag(request))

    def _receive_new(self, request: Request, key: Key, flow: Flow) -> None:
        """Section 8.2: a request that belongs to no dialog."""
        method = request.method
        if method == "REGISTER":
            self._answer_once(request, flow, *register_answer(self.core, request, flow, self.default_answer(request)))
            return
        if request.to_tag:
            call = self._calls.get((request.call_id, request.to_tag))
            ringing = self._early.get((request.call_id, request.to_tag, request.from_tag))
            if ringing is not None:
                transaction = self._open(request, key, flow)
                self._guard(lambda: ringing.receive_early(request, transaction, flow))
            elif call is None:
                self._refuse(request, flow, 481)
            else:
                call.receive_early(request, self._open(request, key, flow))
            return
        merged = merge_key(request)
        if merged in self._merged:
            if self._merged[merged] is not None:
                self._refuse(request, flow, 482)
            return
        if request.uri.partition(":")[0].lower() not in URI_SCHEMES:
            self._refuse(request, flow, 416)
        elif self._lacks(request, flow):
            return
        elif method == "INVITE":
            self._receive_invite(request, key, merged, flow)
        elif method not in KNOWN_METHODS or method in DIALOG_METHODS:
            self._refuse(request, flow, 481 if method in DIALOG_METHODS else 501)
        else:
            transaction = self._open(request, key, flow, merged)
            self._guard(lambda: self._answer(request, transaction, self.core.on_request(request, flow)))
            if transaction.state is State.TRYING:
                self.reply(transaction, request, 500, to_tag=self._tag(request))

    def _receive_invite(self, request: Request, key: Key, merged: Key, flow: Flow) -> None:
        offer = session_description(request)
        if offer is None:
            self._refuse(request, flow, 415, [("Accept", SDP_TYPE)])
        elif not reachable(request):
            self._refuse(request, flow, 400, reason="Bad Contact or Record-Route")
        else:
            transaction = self._open(request, key, flow, merged)
            invite = transaction.invite = ServerInvite(self, transaction, request, flow, offer, merged)
            transaction.to_tag = invite.to_tag
            self._guard(lambda: self.core.on_invite(invite), lambda: invite.reject(500))
            if transaction.silent:  # section 17.2.1: a user that responds at once needs no 100 before it
                self.reply(transaction, request, 100)

    def _answer(self, request: Request, transaction: ServerTransaction, answer: Answer | None) -> None:
        """Respond as the user says, or by default."""
        status, headers = answer or self.default_answer(request)
        self.reply(transaction, request, status, to_tag=self._tag(request), headers=headers)

    def default_answer(self, request: Request) -> Answer:
        return default_answer(request)

    def _lacks(self, request: Request, flow: Flow) -> bool:
        """Refuse a request that wants what we do not know or do not agree to."""
        lacks = lacking(request, self.config)
        if lacks is not None:
            self._refuse(request, flow, *lacks)
        return lacks is not None

    def _open(self, request: Request, key: Key, flow: Flow, merged: Key | None = None) -> ServerTransaction:
        is_invite = request.method == "INVITE"
        back, reopen = response_flows(request.via, flow)
        transaction = ServerTransaction(self, key, back, reopen, is_invite=is_invite)
        self._server[key] = transaction
        if merged is not None:
            transaction.merge_key = merged
            self._merged[merged] = transaction
        return transaction

    def _refuse(self, request: Request, flow: Flow, status: int, headers: HeaderList = (), *, reason: str = "") -> None:
        """Respond and forget; the tag is always the same for one request (section 8.2.7)."""
        self.count("refused")
        if request.method != "ACK":
            self._answer_once(request, flow, status, headers, reason)

    def _answer_once(self, request: Request, flow: Flow, status: int, headers: HeaderList, reason: str = "") -> None:
        self.traced(request.call_id, True, f"{status} {reason or REASONS.get(status, '')}")
        back, reopen = response_flows(request.via, flow)
        data = self.response(request, status, reason, self._tag(request), headers)
        if not self.transmit(data, back) and reopen is not None:
            self.transmit(data, reopen)

    def _malformed(self, error: MalformedMessage, flow: Flow) -> None:
        self.count("malformed")
        request = error.partial
        if request is None or request.method == "ACK" or not self.core.permitted(request, flow):
            return
        try:
            mark_source(request, request.via, flow)
            self._refuse(request, flow, error.status, reason=error.reason)
        except MalformedMessage:
            self.count("stray")

    def _tag(self, request: Request) -> str:
        return f"{crc32(request.headers.get('Via').encode('utf-8', 'replace')):08x}"

    def _guard(self, call: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """Call out; a fault of the user's stays with its one message."""
        try:
            call()
        except Exception:
            self.count("errors")
            logger.exception("SIP handler failed")
            if otherwise is not None:
                otherwise()

    # --- responses

    def _receive_response(self, response: Response, flow: Flow) -> None:
        number, method = response.cseq
        transaction = self._client.get((response.via.branch, method))
        if transaction is not None:
            if len(response.headers.all("Via")) > 1:
                self.count("stray")  # section 8.1.3.3: it went astray
                return
            self.count("responses")
            self.traced(response.call_id, False, f"{response.status} {response.reason}")
            transaction.receive(response, flow)
            return
        if method == "INVITE" and 200 <= response.status < 300:
            # Its transaction is over, or died with another process: whoever repeats it misses our ACK.
            dialog = self._dialogs.get((response.call_id, response.from_tag, response.to_tag))
            if dialog is not None and dialog.ack_again(number):
                return
        self.count("stray")

    # --- flows

    def _configured(self, transport: str, host: str) -> Address:
        return self.config.host or "127.0.0.1", self.config.port or DEFAULT_PORT

    def flow_to(self, target: Target) -> Flow:
        transport = target.transport or "UDP"
        local = self.local(transport, target.host)
        return Flow(transport, (target.host, target.port), local, 0, target.domain, target.outside)

    def _via(self, flow: Flow, branch: str) -> str:
        return f"SIP/2.0/{flow.transport} {self.sent_by(flow)};branch={branch};rport"

    def _by_size(self, request: Request, flow: Flow, branch: str) -> tuple[Flow, Flow | None]:
        """TCP for a request that may not fit into a datagram, and UDP should there be no TCP (section 18.1.1)."""
        if len(request.body) + 400 < self.config.max_udp_bytes and len(request.headers) < 16:
            return flow, None  # surely small
        if len(request.encode()) <= self.config.max_udp_bytes:
            return flow, None
        if self._udp_only.get(flow.remote, 0.0) > self.now():
            return flow, None
        stream = flow._replace(transport="TCP")
        request.headers.set("Via", self._via(stream, branch))
        return stream, flow

    def _track(self, transaction: ClientTransaction) -> None:
        """Be able to find it by its flow, where flows can fail."""
        flow = transaction.flow
        if flow.transport != "UDP" or not is_numeric(flow.remote[0]):
            self._by_flow.setdefault(flow.path, set()).add(transaction)

    def _untrack(self, transaction: ClientTransaction) -> None:
        key = transaction.flow.path
        others = self._by_flow.get(key)
        if others is not None:
            others.discard(transaction)
            if not others:
                del self._by_flow[key]

    def _forget_merged(self, key: Key) -> None:
        if self._merged.get(key) is None:
            self._merged.pop(key, None)
