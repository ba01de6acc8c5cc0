"""Verdicts on one run: the ledgers compared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec

from lab.ledgers import FINAL, Request, Told

MAX_EXAMPLES = 12


class Messages(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the messages."""

    requests: int
    accepted: int
    lost: int
    """Accepted, never taken by the carrier."""
    callbacks_lost: int
    """Accepted, and no final callback came."""
    wrong_final: int
    """Final callbacks that say otherwise than the carrier's receipt, or than an earlier final one."""
    duplicates: int
    """Taken by the carrier more than once: copies beyond the first."""
    unmarked: int
    """Messages among them whose record does not say that it was in doubt; -1: not looked up."""
    twice: int
    """Requests with a key that were answered with another message than before."""
    repeated_callbacks: int
    failed: dict[str, int]
    """Kind -> requests of it that failed (with a key: for good)."""
    retried: int
    """Requests with a key that needed more than one try."""
    gap_s: float
    """Longest time without an acceptance while requests were sent, all kinds together."""
    gap_plain_s: float
    """The same of requests without a key."""
    slowest_s: float
    """Longest wait for an acceptance, one try."""
    outcomes: dict[str, int]
    examples: list[str] = []
    """Some of those that are not as they should be: what, SID, what was told."""


def gap(times: Iterable[float]) -> float:
    """Longest time between two that follow each other, seconds."""
    ordered = sorted(times)
    return round(max((after - before for before, after in pairwise(ordered)), default=0.0), 2)


def messages(
    requests: Sequence[Request],
    taken: Mapping[str, int],
    told: Mapping[str, Sequence[Told]],
    marked: Callable[[str], bool] | None = None,
) -> Messages:
    """Compare. `marked(sid)` says whether a message's record calls it in doubt."""
    accepted = [request for request in requests if request.sid]
    final = {one.key: [t.status for t in told.get(one.key, ()) if t.status in FINAL] for one in accepted}
    sids = {one.key: {t.sid for t in told.get(one.key, ())} | ({one.sid} if one.sid else set()) for one in requests}
    doubled = [one for one in requests if taken.get(one.key, 0) > 1]
    last = max((one.began for one in requests), default=0.0)
    outcomes: dict[str, int] = {}
    failed: dict[str, int] = {}
    for one in requests:
        name = f"{one.kind} {one.outcome}"
        outcomes[name] = outcomes.get(name, 0) + 1
        if not one.sid:
            failed[one.kind] = failed.get(one.kind, 0) + 1
    return Messages(
        requests=len(requests),
        accepted=len(accepted),
        lost=sum(one.key not in taken for one in accepted),
        callbacks_lost=sum(not found for found in final.values()),
        wrong_final=sum(len(set(found)) > 1 or bool(set(found) - {"delivered"}) for found in final.values()),
        duplicates=sum(taken[one.key] - 1 for one in doubled),
        unmarked=-1 if marked is None else sum(not any(map(marked, sids[o.key])) for o in doubled),
        twice=sum(len(found) > 1 for one in accepted if one.kind == "keyed" for found in [sids[one.key]]),
        repeated_callbacks=sum(len(found) - 1 for found in final.values() if found),
        failed=failed,
        retried=sum(one.tries > 1 for one in requests if one.sid),
        gap_s=gap(one.ended for one in accepted if one.ended <= last),
        gap_plain_s=gap(one.ended for one in accepted if one.ended <= last and one.kind != "keyed"),
        slowest_s=round(max((one.ended - one.began for one in accepted if one.tries == 1), default=0.0), 2),
        outcomes=dict(sorted(outcomes.items())),
        examples=_examples(accepted, taken, told, final),
    )


def _examples(
    accepted: Sequence[Request],
    taken: Mapping[str, int],
    told: Mapping[str, Sequence[Told]],
    final: Mapping[str, Sequence[str]],
) -> list[str]:
    found = []
    for one in accepted:
        if one.key not in taken:
            found.append(f"lost {one.kind} {one.key} {one.sid}")
        elif not final[one.key]:
            found.append(
                f"no final callback {one.kind} {one.key} {one.sid} told {[t.status for t in told.get(one.key, ())]}"
            )
        elif set(final[one.key]) != {"delivered"}:
            found.append(f"wrong {one.kind} {one.key} {one.sid} told {final[one.key]}")
    return found[:MAX_EXAMPLES]


def good(one: Messages) -> bool:
    """Whether the zeros are zero."""
    return not (one.lost or one.callbacks_lost or one.wrong_final or one.twice or one.unmarked > 0)
