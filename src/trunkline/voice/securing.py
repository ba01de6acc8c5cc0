"""Whether a leg has SRTP: what its trunk wants, and what the way that its signalling takes allows.

The keys stand in the session description (trunkline.sip.sdes), so they are only given and taken over TLS, unless
`sip.srtp_without_tls` says that the network is trusted.

    trunk     calls that come in                     calls that go out
    off       SRTP if it is offered, over TLS        plain
    optional  SRTP if it is offered, over TLS        SRTP over TLS; once more without, if that gets 488 or 606
    required  SRTP, or 488                           SRTP, or no call
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import msgspec

from trunkline.sip import sdes
from trunkline.sip.errors import NotAcceptable
from trunkline.sip.offer_answer import OFF, OPTIONAL, REQUIRED

if TYPE_CHECKING:
    from trunkline.settings import Sip, Trunk
    from trunkline.sip.offer_answer import Local
    from trunkline.voice.checkpoints import LegCheckpoint

SECURE_TRANSPORTS: Final = frozenset({"TLS", "WSS"})
REFUSED: Final = frozenset({488, 606})
"""Answers of a peer that cannot do SRTP."""


def incoming(trunk: Trunk | None, transport: str, sip: Sip) -> str:
    """How offers that come in are taken (`Local.srtp`). Raises NotAcceptable."""
    safe = transport in SECURE_TRANSPORTS or sip.srtp_without_tls
    if trunk is not None and trunk.srtp == REQUIRED:
        if not safe:
            raise NotAcceptable(f"SRTP is required, and keys over {transport} are none")
        return REQUIRED
    return OPTIONAL if safe else OFF


def outgoing(trunk: Trunk | None, transport: str, sip: Sip, *, refused: bool = False) -> str:
    """What is offered: SRTP alone (`required`) or plain RTP (`off`). `refused`: SRTP was not taken. Raises
    NotAcceptable."""
    wanted = trunk.srtp if trunk is not None else OFF
    if transport in SECURE_TRANSPORTS or sip.srtp_without_tls:
        return OFF if wanted == OFF or (wanted == OPTIONAL and refused) else REQUIRED
    if wanted == REQUIRED:
        raise NotAcceptable(f"SRTP is required, and keys over {transport or 'UDP'} are none")
    return OFF


def may_be_plain(trunk: Trunk | None, status: int, offered: str) -> bool:
    """Whether a call whose SRTP was refused may be tried once more without."""
    return trunk is not None and trunk.srtp == OPTIONAL and offered == REQUIRED and status in REFUSED


def keys(srtp: str) -> tuple[str, ...]:
    """New keys of ours for a leg."""
    if srtp == OFF:
        return ()
    return tuple(sdes.make_key(secrets.token_bytes(sdes.KEY_BYTES)) for _ in sdes.SUITES)


def bound(local: Local) -> Local:
    """Our side of a leg that must keep its SRTP whatever its peer offers later."""
    return msgspec.structs.replace(local, srtp=REQUIRED)


def renewed(local: Local, trunk: Trunk | None, transport: str, sip: Sip) -> Local:
    """Our side for another phone in the peer's place, which is to know nothing of the keys before, and needs SRTP where
    that one did. Raises NotAcceptable."""
    srtp = incoming(trunk, transport, sip)
    if local.srtp == REQUIRED and srtp != REQUIRED:
        if srtp == OFF:
            raise NotAcceptable(f"SRTP is required, and keys over {transport} are none")
        srtp = REQUIRED
    return msgspec.structs.replace(local, srtp=srtp, srtp_keys=keys(srtp))


def may_reopen(saved: LegCheckpoint, epoch: int) -> bool:
    """Whether a leg that the media process does not know may be given its keys once more: only if the process's memory
    is still the one of then, so that the leg never was in it. What was sent with the keys in another memory is not
    known, and the same key stream must never be used twice."""
    return saved.negotiated is None or saved.negotiated.srtp is None or saved.media_epoch == epoch
