"""What is missing before a release may start, read from its evidence."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from trunkline.release.evidence import Evidence
from trunkline.release.people import BadKey, is_signed, may_approve, statement
from trunkline.release.risk import Risk

LADDER: Final = ("integration", "staging", "production")
"""The rungs that a release goes up; development is everybody's own."""
OPEN: Final = ("planned", "passed", "failed", "approved", "promoted")
"""What a release that has not started yet shows last."""
RUNNING: Final = ("started", "moved", "judged")


class Gate(NamedTuple):
    """One thing that the class asks for."""

    name: str
    is_open: bool
    told: str
    """What shows it, or what is missing and how to show it."""


def rung_below(environment: str) -> str:
    """Where a release must have been done before; empty: nowhere."""
    place = LADDER.index(environment) if environment in LADDER else 0
    return LADDER[place - 1] if place else ""


def gates(risk: Risk, chain: Sequence[Evidence], authors: tuple[str, ...]) -> list[Gate]:
    """Everything that a release must show here, in the order in which people do it."""
    plan = chain[0]
    must = risk.wants(plan.risk_class, plan.environment)
    found = [_check(name, chain) for name in must.checks]
    if must.approvals:
        found.append(_approvals(risk, chain, authors, must.approvals))
    if below := rung_below(plan.environment):
        found.append(_promoted(chain, below))
    return found


def _check(name: str, chain: Sequence[Evidence]) -> Gate:
    last = next((each for each in reversed(chain) if each.what.get("check") == name), None)
    way = f"`trunkline release check {plan_id(chain)} {name} -- COMMAND`"
    if last is None:
        return Gate(name, is_open=False, told=f"not shown yet: {way}")
    if last.status != "passed":
        return Gate(name, is_open=False, told=f"failed: {last.what.get('told', '')}; again by {way}")
    return Gate(name, is_open=True, told=str(last.what.get("told", "passed")))


def _approvals(risk: Risk, chain: Sequence[Evidence], authors: tuple[str, ...], count: int) -> Gate:
    signers = sorted(approvers(risk, chain, authors))
    told = f"{len(signers)} of {count}" + (f" ({', '.join(signers)})" if signers else "")
    if len(signers) < count:
        told += f": `trunkline release approve {plan_id(chain)} --as ADDRESS --key FILE`"
    return Gate("approval", is_open=len(signers) >= count, told=told)


def approvers(risk: Risk, chain: Sequence[Evidence], authors: tuple[str, ...]) -> Mapping[str, str]:
    """Address and name of those who signed and may; a signature is looked at each time, not believed."""
    plan, found = chain[0], dict[str, str]()
    text = statement(plan.release, plan.environment, plan.base, plan.head, plan.risk_class)
    for each in chain:
        if each.status != "approved":
            continue
        try:
            approver = may_approve(risk, each.by, plan.risk_class, authors)
            if is_signed(approver.key, text, str(each.what.get("signature", ""))):
                found[approver.email] = approver.name
        except BadKey:
            continue
    return found


def _promoted(chain: Sequence[Evidence], below: str) -> Gate:
    shown = next((each for each in chain if each.status == "promoted" and each.what.get("from") == below), None)
    if shown is None:
        return Gate(
            "promotion", is_open=False, told=f"not done in {below} yet, or not brought: `trunkline promote FILE`"
        )
    return Gate("promotion", is_open=True, told=f"done in {below} as {shown.what.get('release')}")


def plan_id(chain: Sequence[Evidence]) -> str:
    """The release that the chain is of."""
    return chain[0].release


def standing(chain: Sequence[Evidence]) -> str:
    """How a release stands, in a word."""
    last = chain[-1].status
    return "open" if last in OPEN else "running" if last in RUNNING else last.replace("_", " ")
