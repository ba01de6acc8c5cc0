"""`trunkline release`: from a change to a running version, by what it risks."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from trunkline.cli.common import CommandError, run, settings_of, show_fields, show_table
from trunkline.cli.release_desk import (
    Desk,
    author,
    authors_of,
    found,
    nodes_of,
    opened,
    reasons_of,
    risk_of,
    show_gates,
    when,
    work_trees,
)
from trunkline.release import change as changes
from trunkline.release.evidence import Evidence, dump
from trunkline.release.gates import OPEN, gates, standing
from trunkline.release.people import may_approve, private_key, public_key, public_line, sign, statement
from trunkline.release.performance import MAX_ROUNDS, MIN_ROUNDS, measure
from trunkline.release.risk import CHECKS, class_of, classify, of_base, text_of_base
from trunkline.release.steps import BadCanary, Run, canaries
from trunkline.release.world import NodesWorld

app = typer.Typer(help="Releases by their risk.", no_args_is_help=True, rich_markup_mode=None)

Id = Annotated[str, typer.Argument(metavar="RELEASE", help="Its SID, or `last`.")]
Repo = Annotated[Path, typer.Option(help="The repository that the change is in.")]
By = Annotated[str, typer.Option(help="Who does it; default: git's user.email.")]
TOLD: Final = 400
"""Characters of what a check printed last that are kept."""
ABORT_WAIT_S: Final = 30.0
POLL_S: Final = 0.5


@app.command()
def plan(
    context: typer.Context,
    base: Annotated[str, typer.Option(help="The commit that runs now, where nothing has been released yet.")] = "",
    head: Annotated[str, typer.Option(help="The commit that is to run.")] = "HEAD",
    repo: Repo = Path(),
    declare: Annotated[str, typer.Option(help="The class that you take it for; less than computed is refused.")] = "",
    by: By = "",
) -> None:
    """Class a change by what it touches, and say what it must show.

    Example: trunkline release plan --base v1.4 --head v1.5
    """

    async def work(desk: Desk) -> list[Evidence]:
        begin = await desk.base(repo, base)
        if not begin:
            raise CommandError("nothing has been released here yet: say --base, the commit that runs now")
        risk = of_base(repo, begin)
        change = changes.read(repo, begin, head, risk.is_settings)
        if not change.files:
            raise CommandError(f"{head} differs in nothing from {begin}")
        reasons = classify(risk, change)
        name = class_of(risk, reasons)
        if declare and risk.rank(declare) < risk.rank(name):
            raise CommandError(f"it is of class {name}, not {declare}: {reasons[0].path} ({reasons[0].what})")
        if declare:
            name = declare
        what: dict[str, Any] = {
            "risk": text_of_base(repo, begin), "authors": list(change.authors), "files": len(change.files),
            "reasons": [[each.name, each.path, each.what] for each in reasons[:50]],
        }  # fmt: skip
        return [await desk.records.plan(change.base, change.head, name, by or author(repo), what)]

    with opened(settings_of(context)) as desk:
        chain = run(desk.do(work))
    typer.echo(f"{chain[0].release} is of class {chain[0].risk_class}")
    show_table(("class", "file", "because of"), reasons_of(chain)[:10])
    show_gates(chain)


@app.command(context_settings={"ignore_unknown_options": True})
def check(
    context: typer.Context,
    release: Id,
    name: Annotated[str, typer.Argument(help=", ".join(CHECKS))],
    command: Annotated[list[str], typer.Argument(help="Shows it, with exit status 0. Of `performance`: what to time.")],
    repo: Repo = Path(),
    rounds: Annotated[int, typer.Option(help="Of performance: pairs of runs.", min=MIN_ROUNDS, max=MAX_ROUNDS)] = 5,
    by: By = "",
) -> None:
    """Run a check on exactly the release's commit, and keep what it showed. Exit code 1 when it failed.

    `performance` runs the command in work trees of both versions in turns and compares CPU seconds.

    Example: trunkline release check last tests -- make test
    """
    if name not in CHECKS:
        raise CommandError(f"{name} is no check: there are {', '.join(CHECKS)}")
    with opened(settings_of(context)) as desk:
        chain = run(desk.do(lambda desk: found(desk, release, OPEN)))
        plan = chain[0]
        if name == "performance":
            with work_trees(repo, plan.base, plan.head) as (old, new):
                cost = measure(old, new, command, rounds)
            passed = not cost.is_more()
            told = f"CPU {cost.ratio:.3f} of the former version's (chance {cost.chance:.2g}, {len(cost.old)} pairs)"
            what: dict[str, Any] = {"old_s": list(cost.old), "new_s": list(cost.new)}
        else:
            if not changes.Git(repo).is_clean_at(plan.head):
                raise CommandError(
                    f"{repo.absolute()} is not exactly {plan.head[:12]}: check that out, without changes"
                )
            passed, told, what = _shown(command, repo)
        what |= {"check": name, "command": command, "told": told}
        run(desk.add(release, OPEN, "passed" if passed else "failed", by or author(repo), what))
    typer.echo(f"{name}: {'passed' if passed else 'failed'}, {told}")
    if not passed:
        raise typer.Exit(1)


def _shown(command: list[str], repo: Path) -> tuple[bool, str, dict[str, Any]]:
    """Run a check where the operator sees it; whether it passed, in a line, and its figures."""
    began, printed, tail = time.monotonic(), hashlib.sha256(), b""
    with subprocess.Popen(command, cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # noqa: S603
        assert process.stdout is not None
        while chunk := os.read(process.stdout.fileno(), 65_536):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            printed.update(chunk)
            tail = (tail + chunk)[-TOLD:]
    took = time.monotonic() - began
    last = tail.decode(errors="replace").strip().rpartition("\n")[2]
    return (
        process.returncode == 0,
        f"status {process.returncode} after {took:.0f} s: {last}",
        {"sha256": printed.hexdigest(), "seconds": round(took, 1)},
    )


@app.command()
def approve(
    context: typer.Context,
    release: Id,
    address: Annotated[str, typer.Option("--as", help="Your address, as risk.toml names it.")],
    key: Annotated[Path, typer.Option(help="Your OpenSSH private key (ed25519).")] = Path("~/.ssh/id_ed25519"),
) -> None:
    """Sign for a release. Nobody signs off their own change.

    Example: trunkline release approve last --as ada@example.com
    """
    file = key.expanduser()
    locked = b"bcrypt" in file.read_bytes()[:200] or b"ENCRYPTED" in file.read_bytes()[:400]
    password = typer.prompt("Password of the key", hide_input=True, default="") if locked else ""
    with opened(settings_of(context)) as desk:
        chain = run(desk.do(lambda desk: found(desk, release, OPEN)))
        plan = chain[0]
        approver = may_approve(risk_of(chain), address, plan.risk_class, authors_of(chain))
        signer = private_key(file, password)
        if public_line(signer).split()[:2] != approver.key.split()[:2]:
            raise CommandError(f"{file} is not the key that risk.toml names for {approver.email}")
        public_key(approver.key)
        text = statement(plan.release, plan.environment, plan.base, plan.head, plan.risk_class)
        what = {"name": approver.name, "signature": sign(signer, text)}
        chain = run(desk.add(release, OPEN, "approved", approver.email, what))
    show_gates(chain)


@app.command()
def start(
    context: typer.Context,
    release: Id,
    canary: Annotated[str, typer.Option(help="Nodes that go first: zone=NAME, or a percentage of the nodes.")] = "",
    repo: Repo = Path(),
    by: By = "",
) -> None:
    """Take the release to the nodes: canaries first, back if they do worse. Exit code 1 when it was rolled back.

    Example: trunkline release start last --canary zone=eu1
    """
    settings = settings_of(context)
    with opened(settings) as desk:
        chain = run(desk.do(lambda desk: found(desk, release, OPEN)))
        plan, risk = chain[0], risk_of(chain)
        shut = [gate for gate in gates(risk, chain, authors_of(chain)) if not gate.is_open]
        if shut:
            raise CommandError(f"{plan.release} may not start: {'; '.join(f'{one.name} {one.told}' for one in shut)}")
        if risk.must[plan.risk_class].canary and not canary:
            raise CommandError(
                f"a change of class {plan.risk_class} starts with a canary: add --canary zone=NAME or 25"
            )
        if not settings.release.move:
            raise CommandError("release.move is not set: nobody knows how a version gets onto a node")
        nodes = nodes_of(settings)
        try:
            first = canaries(nodes, canary) if canary else []
        except BadCanary as error:
            raise CommandError(str(error)) from None
        world = NodesWorld(settings.release, settings.server.metrics_token or "", typer.echo)
        who = by or author(repo)

        async def go(desk: Desk) -> bool:
            runs = await desk.running()
            if runs and runs != plan.base:
                raise CommandError(
                    f"{plan.release} was planned for {plan.base[:12]}, but {runs[:12]} runs by now: plan it anew"
                )
            return await Run(desk.records, chain, world, settings.release, who).go(nodes, first)

        is_done = run(desk.do(go))
    typer.echo(f"{plan.release} is {standing(chain)}")
    if not is_done:
        raise typer.Exit(1)


@app.command()
def status(context: typer.Context, release: Annotated[str, typer.Argument(metavar="RELEASE")] = "") -> None:
    """Show all releases of this environment, or one with what it still misses.

    Example: trunkline release status last
    """
    with opened(settings_of(context)) as desk:
        if not release:
            chains = run(desk.do(lambda desk: desk.records.all()))
            rows = [
                (one.release, one.risk_class, standing(chain), one.base[:12], one.head[:12], when(chain[-1]), one.by)
                for chain in chains.values()
                for one in chain[:1]
            ]
            show_table(("release", "class", "stands", "base", "head", "since", "by"), rows)
            return
        chain = run(desk.do(lambda desk: found(desk, release)))
    plan = chain[0]
    show_fields(
        [("release", plan.release), ("environment", plan.environment), ("class", plan.risk_class),
         ("stands", standing(chain)), ("base", plan.base), ("head", plan.head)]
    )  # fmt: skip
    if standing(chain) == "open":
        show_gates(chain)


@app.command()
def abort(
    context: typer.Context,
    release: Id,
    take_over: Annotated[bool, typer.Option(help="Roll back here: whoever started it has died.")] = False,
    repo: Repo = Path(),
    by: By = "",
) -> None:
    """Stop a release that is on its way, and roll it back.

    Example: trunkline release abort last
    """
    settings = settings_of(context)
    who = by or author(repo)
    with opened(settings) as desk:
        chain = run(desk.do(lambda desk: found(desk, release, ("started", "moved", "judged"))))
        if take_over:
            moved = {each.what["node"] for each in chain if each.status == "moved"} | set(
                chain[-1].what.get("nodes", ())
            )
            nodes = [node for node in nodes_of(settings) if node.name in moved]
            world = NodesWorld(settings.release, settings.server.metrics_token or "", typer.echo)
            run(
                desk.do(
                    lambda desk: Run(desk.records, chain, world, settings.release, who).back(nodes, f"aborted by {who}")
                )
            )
        else:
            run(desk.do(lambda desk: desk.records.ask_to_abort(chain[0].release, who)))
            end = time.monotonic() + ABORT_WAIT_S
            while standing(chain) == "running" and time.monotonic() < end:
                time.sleep(POLL_S)
                chain = run(desk.do(lambda desk: found(desk, release)))
    if standing(chain) == "running":
        typer.echo("asked for; who started it stops at its next step. If that has died, add --take-over")
    else:
        typer.echo(f"{chain[0].release} is {standing(chain)}")


@app.command()
def evidence(
    context: typer.Context,
    release: Id,
    export: Annotated[Path | None, typer.Option(help="Write it to this file, for the next environment.")] = None,
) -> None:
    """Show every step of a release, its chain and signatures checked.

    Example: trunkline release evidence last --export release.jsonl
    """
    with opened(settings_of(context)) as desk:
        chain = run(desk.do(lambda desk: found(desk, release)))
    if export is not None:
        export.write_bytes(dump(chain))
        typer.echo(f"{len(chain)} steps in {export}")
        return
    rows = [(one.number, when(one), one.status, one.by, _short(one)) for one in chain]
    show_table(("step", "at", "what", "by", "shown"), rows)


def _short(one: Evidence) -> str:
    hidden = ("risk", "signature", "authors", "reasons", "sha256")
    return ", ".join(f"{name}: {value}" for name, value in one.what.items() if name not in hidden)[:TOLD]


@app.command()
def key(context: typer.Context) -> None:
    """Print this environment's public key, for `release.trusted_key` of the next one.

    Example: trunkline release key
    """
    with opened(settings_of(context)) as desk:
        typer.echo(desk.public_key)
