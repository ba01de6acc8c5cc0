"""What a session tells its owner."""

from typing import Any, Literal

import msgspec

from trunkline.smpp import pdu as p


class Event(msgspec.Struct, frozen=True):
    """Base of all."""


class BindRequested(Event, frozen=True):
    """SMSC: an ESME wants to bind. Answer with `accept_bind` or `refuse_bind`, now or later."""

    sequence: int
    pdu: p.Bind


class BindAnswered(Event, frozen=True):
    """ESME: the answer to our bind; with status 0 the session is bound."""

    pdu: p.BindResp | p.GenericNack


class RequestReceived(Event, frozen=True):
    """A request to be answered, once, by `respond` with this sequence number."""

    sequence: int
    pdu: p.Request


class ResponseReceived(Event, frozen=True):
    """The answer to the request sent with `token`. `late`: its timeout had been reported before."""

    token: Any
    pdu: p.Response
    late: bool = False


class RequestFailed(Event, frozen=True):
    """No answer to the request sent with `token`: whether the peer took it is not known."""

    token: Any
    reason: Literal["timeout", "closed"]


class OutbindReceived(Event, frozen=True):
    """ESME: the SMSC asks us to bind."""

    pdu: p.Outbind


class AlertReceived(Event, frozen=True):
    """ESME: a handset is reachable again."""

    pdu: p.AlertNotification


class Closed(Event, frozen=True):
    """The session is over: send what is left, then close the connection. Always the last event."""

    reason: str
