"""One call that rings several phones: all registered contacts of a user, at once (RFC 3261 section 16.7, as a caller).

Each phone gets an INVITE of its own with the same offer. What the first one plays before anybody picks up (early media)
is heard until somebody does, or until that phone is out; then the next one's that has something to be heard. The first
2xx wins, the others are cancelled ("completed elsewhere", so that no phone shows a missed call); a 6xx ends the
call everywhere; otherwise the call fails with the best of all refusals once the last has come. A device that keeps
several flows (RFC 5626) is called by its newest, by the next when that is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from trunkline.sip.core import CallListener, HeaderList
from trunkline.sip.errors import MalformedMessage, NotAcceptable
from trunkline.sip.registrar import Binding, way_to

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.flow import Flow
    from trunkline.sip.message import Response

ELSEWHERE: Final = ("Reason", 'SIP;cause=200;text="Call completed elsewhere"')
FLOW_FAILED: Final = 430
"""A proxy's word for a dead flow (RFC 5626 section 11.6)."""
DEAD: Final = frozenset({408, 503})
"""Without a response: nothing answers there, or nothing could be sent."""
RANKS: Final = (486, 480, 408)
"""Of several refusals below 500, these tell most of the user; then the lowest."""


class Placed(Protocol):
    """An INVITE under way (trunkline.sip.client_invite.ClientInvite)."""

    @property
    def call_id(self) -> str: ...

    @property
    def sent(self) -> tuple[bytes, Flow]: ...

    @property
    def heard(self) -> bool: ...

    def cancel(self, headers: HeaderList = ()) -> None: ...


class Place(Protocol):
    """`trunkline.sip.stack.Stack.invite`, as far as it is needed here."""

    def __call__(
        self, uri: str, *, to: str = "", from_: str, target: Any, sdp: bytes, headers: Any = (),
        routes: Sequence[str] = (), listener: CallListener,
    ) -> Placed: ...  # fmt: skip


class Fork:
    """See the module; it is placed when it is made. `listener` hears of it as of one INVITE. `rings` is told what has
    to be cancelled should this process be lost, each time one more phone rings; with `at_once` each time that an INVITE
    has left.

    Raises MalformedMessage when no phone can be called.
    """

    def __init__(
        self,
        place: Place,
        groups: Sequence[Sequence[Binding]],
        *,
        to: str,
        from_: str,
        sdp: bytes,
        headers: HeaderList,
        listener: CallListener,
        rings: Callable[[list[tuple[bytes, Flow]]], None] = lambda sent: None,
        at_once: bool = False,
    ) -> None:
        self._place = place
        self._to, self._from, self._sdp, self._headers = to, from_, sdp, list(headers)
        self._listener = listener
        self._rings = rings
        self._at_once = at_once
        self._placed = False
        self._over = False
        self._heard: _Branch | None = None  # whose early media is heard
        self._refused = 0  # the status that cancelled the rest
        self._worst: tuple[int, str, Response | None] | None = None
        self._branches: list[_Branch] = []
        for group in groups:
            branch = _Branch(self, group)
            if branch.next():
                self._branches.append(branch)
        if not self._branches:
            raise MalformedMessage(404, "no contact that could be called")
        self._placed = True
        if at_once:
            self.left()

    # -- as an INVITE ----------------------------------------------------------------------------------------

    @property
    def call_id(self) -> str:
        """Of the first phone's INVITE."""
        return self._branches[0].invite.call_id

    @property
    def sent(self) -> tuple[bytes, Flow]:
        """The first phone's INVITE; see `rings` for all of them."""
        return self._branches[0].invite.sent

    @property
    def heard(self) -> bool:
        """Whether any phone has responded."""
        return any(branch.invite.heard for branch in self._branches)

    @property
    def addresses(self) -> list[str]:
        """Where each phone is."""
        return [branch.binding.flow.remote[0] for branch in self._branches]

    def cancel(self, headers: HeaderList = ()) -> None:
        """Give up on all phones."""
        for branch in self._branches:
            branch.cancel(headers)

    # -- for the branches ------------------------------------------------------------------------------------

    def place(self, binding: Binding, branch: CallListener) -> Placed:
        """Raises MalformedMessage."""
        uri, routes, target = way_to(binding)
        return self._place(
            uri, to=self._to, from_=self._from, target=target, sdp=self._sdp, headers=self._headers, routes=routes,
            listener=branch,
        )  # fmt: skip

    def left(self) -> None:
        """An INVITE has left."""
        if self._at_once and self._placed and not self._over:
            self._rings([each.sent for each in self._branches if each.sent is not None and not each.over])

    def progressed(self, branch: _Branch, response: Response, sdp: bytes, *, first: bool) -> None:
        """A phone rings, and may play something."""
        if self._over or self._refused:
            return
        if first and not self._at_once:
            self._rings([each.invite.sent for each in self._branches if each.rang and not each.over])
        if sdp and self._heard is None:
            self._heard = branch
        self._listener.on_progress(response, sdp if branch is self._heard else b"")

    def updated(self, branch: _Branch, tag: str, offer: bytes) -> bytes:
        """A phone changes what it plays before it is picked up; only the one that is heard may. Raises
        NotAcceptable."""
        if self._over or self._refused or branch is not self._heard:
            raise NotAcceptable("another phone is heard")
        return self._listener.on_early_update(tag, offer)

    def _hear_next(self, before: _Branch) -> None:
        """The phone that was heard is out."""
        if before is not self._heard:
            return
        self._heard = next((one for one in self._branches if one.early is not None and not one.over), None)
        if self._heard is not None and self._heard.early is not None:
            self._listener.on_progress(*self._heard.early)

    def answered(self, branch: _Branch, dialog: Dialog, response: Response, sdp: bytes) -> None:
        """A phone was picked up."""
        if self._over:  # two at the same moment
            dialog.bye(headers=(ELSEWHERE,))
            return
        self._over = True
        for other in self._branches:
            if other is not branch:
                other.cancel((ELSEWHERE,))
        self._listener.on_answer(dialog, response, sdp)

    def failed(self, branch: _Branch, status: int, reason: str, response: Response | None) -> None:
        """A phone will not be picked up."""
        if self._over:
            return
        if status != 487 or not self._refused:
            self._remember(status, reason, response)
        if 600 <= status < 700 and not self._refused:
            self._refused = status
            self.cancel()
        if not all(one.over for one in self._branches):
            if not self._refused:
                self._hear_next(branch)
        elif self._worst is not None:
            self._over = True
            self._listener.on_failure(*self._worst)

    def _remember(self, status: int, reason: str, response: Response | None) -> None:
        if self._worst is None or _rank(status) < _rank(self._worst[0]):
            self._worst = status, reason, response


class _Branch(CallListener):
    """One device: its flows one after the other."""

    def __init__(self, fork: Fork, group: Sequence[Binding]) -> None:
        self._fork = fork
        self._left = list(group)
        self._cancelled = False
        self.binding = group[0]
        self.invite: Placed
        self.rang = self.over = False
        self.sent: tuple[bytes, Flow] | None = None
        self.early: tuple[Response, bytes] | None = None
        """The last response with something to be heard."""

    def next(self) -> bool:
        """Call by the next flow; False when there is none."""
        while self._left:
            self.binding = self._left.pop(0)
            try:
                self.invite = self._fork.place(self.binding, self)
            except MalformedMessage:
                continue
            return True
        return False

    def cancel(self, headers: HeaderList) -> None:
        if not self.over and not self._cancelled:
            self._cancelled = True
            self.invite.cancel(headers)

    def on_sent(self, invite: bytes, flow: Flow) -> None:
        self.sent = invite, flow
        self._fork.left()

    def on_progress(self, response: Response, sdp: bytes) -> None:
        first, self.rang = not self.rang, True
        if sdp:
            self.early = response, sdp
        self._fork.progressed(self, response, sdp, first=first)

    def on_answer(self, dialog: Dialog, response: Response, sdp: bytes) -> None:
        self.over = True
        self._fork.answered(self, dialog, response, sdp)

    def on_failure(self, status: int, reason: str, response: Response | None) -> None:
        dead = status in DEAD if response is None else status == FLOW_FAILED
        if dead and not self.rang and not self._cancelled and self.next():
            return
        self.over = True
        self._fork.failed(self, status, reason, response)

    def on_early_update(self, tag: str, offer: bytes) -> bytes:
        """Raises NotAcceptable."""
        return self._fork.updated(self, tag, offer)


def _rank(status: int) -> tuple[int, int]:
    """The lower, the better a refusal: 6xx, then what the user said, then the network's troubles (section 16.7)."""
    if status >= 600:
        return 0, status
    if status in RANKS:
        return 1, RANKS.index(status)
    return (2, status) if status < 500 else (3, status)
