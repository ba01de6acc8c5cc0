"""What of a dialog another process needs to go on with it."""

from typing import Final

import msgspec

from trunkline.sip.flow import Flow

STATE_VERSION: Final = 1


class DialogState(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A dialog as another process can go on with it. `id` names it."""

    v: int = STATE_VERSION
    call_id: str
    local_tag: str
    remote_tag: str
    local: str
    """Our From, with the tag."""
    remote: str
    """Our To, with the peer's tag."""
    local_cseq: int = 0
    remote_cseq: int = -1
    """-1: the peer has sent no request yet."""
    target: str
    """The peer's Contact."""
    routes: tuple[str, ...] = ()
    flow: Flow
    behind_nat: bool = False
    """The peer is reached where its messages come from, not at its Contact."""
    is_caller: bool
    """Whether we sent the INVITE that made it."""
    invite_cseq: int = 0
    """Of our last INVITE."""
    ack: bytes = b""
    """The ACK of our last INVITE's 2xx, for when that is repeated."""
    ack_flow: Flow | None = None
    answer: bytes = b""
    """Our 2xx that no ACK has come for yet."""
    answer_cseq: int = -1
    """CSeq of the last INVITE that we answered with a 2xx."""
    answer_flow: Flow | None = None
    invite_key: tuple[str, ...] = ()
    """What identifies the INVITE that made it, when the peer sent it."""
    peer_updates: bool = False
    """Whether the peer takes UPDATE (its Allow)."""
    session_s: int = 0
    """Session interval that was agreed (RFC 4028); 0: none."""
    we_refresh: bool = False
    """Whether it is for us to refresh the session."""
    rack: str = ""
    """What the PRACK of a reliable response says that was not acknowledged when our 2xx was settled."""
    homes: tuple[str, ...] = ()
    """Hosts that our INVITE went to, by address and by name: they alone have challenges answered. Empty: not known."""
