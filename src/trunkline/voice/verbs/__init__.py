"""The table of voice verbs. To add one: a file here, one line in `VERBS`, one test (docs/howto/add-a-verb.md).

A verb's file holds its typed record (named as the element), its `SPEC` (see trunkline.twiml.schema) and

    async def run(verb, session, state) -> Next | None

`None` goes on with the next verb, `Goto` with another document, `Stop` ends the call. Every wait goes through
`session.wait(...)`, which raises `CallEnded` or `Redirected`: a verb lets them pass, after it has undone what it began
(what is played is stopped by the session). `state` is what the verb itself stored with `session.save(...)` before the
node was lost, or an empty dictionary.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trunkline.twiml.schema import VerbSpec
from trunkline.voice.steps import Next
from trunkline.voice.verbs import (
    dial,
    gather,
    hangup,
    later,
    pause,
    play,
    record,
    redirect,
    refer,
    reject,
    say,
    sms,
)

if TYPE_CHECKING:
    from trunkline.voice.session import Session

Run = Callable[[Any, "Session", dict[str, Any]], Awaitable[Next | None]]


def _always(_verb: Any) -> bool:
    return True


def _never(_verb: Any) -> bool:
    return False


class VoiceVerb(NamedTuple):
    """A row of the table."""

    spec: VerbSpec
    run: Run
    answers: Callable[[Any], bool] = _always
    """Whether the call is answered before the verb runs (given the verb's record)."""


_ROWS: Final = (
    VoiceVerb(dial.SPEC, dial.run, answers=dial.answers),
    VoiceVerb(gather.SPEC, gather.run),
    VoiceVerb(hangup.SPEC, hangup.run),
    VoiceVerb(pause.SPEC, pause.run, answers=_never),
    VoiceVerb(play.SPEC, play.run),
    VoiceVerb(record.SPEC, record.run),
    VoiceVerb(redirect.SPEC, redirect.run),
    VoiceVerb(refer.SPEC, refer.run),
    VoiceVerb(reject.SPEC, reject.run, answers=_never),
    VoiceVerb(say.SPEC, say.run),
    *(VoiceVerb(spec, sms.run) for spec in sms.SPECS),
    *(VoiceVerb(spec, later.run, answers=_never) for spec in later.SPECS),
)

VERBS: Final[dict[str, VoiceVerb]] = {row.spec.name: row for row in _ROWS}
SPECS: Final[dict[str, VerbSpec]] = {name: row.spec for name, row in VERBS.items()}
"""What `twiml.parse` takes."""
