"""`trunkline learn`: a candidate follows what production does, and is compared with it."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from trunkline.cli.common import CommandError, settings_of, show_fields, show_table
from trunkline.learning import candidates, report, runs
from trunkline.learning.run import Run, hidden
from trunkline.learning.sampling import Sampling
from trunkline.learning.tally import Cost, Tally
from trunkline.learning.views import ASPECTS
from trunkline.settings import Settings

app = typer.Typer(help="Candidates that follow production.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The run.")]


@app.command()
def start(
    context: typer.Context,
    name: Name,
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="A settings file whose parts replace production's, or NAME=module:attribute."),
    ] = None,
    version: Annotated[Path | None, typer.Option(help="Folder of another version of Trunkline.")] = None,
    path: Annotated[list[Path] | None, typer.Option(help="Folder that the candidate's modules are in.")] = None,
    account: Annotated[list[str] | None, typer.Option(help="Only this account's work; may be repeated.")] = None,
    number: Annotated[list[str] | None, typer.Option(help="Only work from or to this number.")] = None,
    percent: Annotated[float, typer.Option(help="Only this share, by SID.", min=0.01, max=100)] = 100.0,
) -> None:
    """Let a candidate follow the node on this machine, shut in, with a no-op provider and no-op webhooks.

    Example: trunkline learn start new-routes --candidate routes.toml --percent 10
    """
    settings = settings_of(context)
    if not settings.data_path.is_dir():
        raise CommandError(f"there is no data in {settings.data_path}: a candidate follows a node of this machine")

    def read(tree: Mapping[str, Any]) -> Settings:
        return settings_of(context, candidate=tree)

    try:
        sides, commit = candidates.sides(settings, candidate or [], version, path or [], read)
        told = ", ".join([*(candidate or []), *([str(version)] if version else [])])
        sampling = Sampling(frozenset(account or ()), frozenset(number or ()), percent)
        wanted = Run(name, told, commit, int(time.time() * 1000), sampling, settings.learning, sides)
        wanted.hidden = hidden(settings)
        runs.start(settings.data_path, wanted)
    except runs.CannotLearn as error:
        raise CommandError(str(error)) from None
    typer.echo(f"{name} learns; the node finds it within a second. See `trunkline learn report {name}`")


@app.command(name="list")
def list_(context: typer.Context) -> None:
    """Show all runs.

    Example: trunkline learn list
    """
    data = settings_of(context).data_path
    rows = []
    for name in runs.names(data):
        run, tally = _found(data, name)
        rows.append((name, run.candidate, _state(data, name, tally), tally.work, _differ(tally)))
    show_table(("run", "candidate", "state", "compared", "differ"), rows)


@app.command()
def status(context: typer.Context, name: Name) -> None:
    """Show how far a run is.

    Example: trunkline learn status new-routes
    """
    data = settings_of(context).data_path
    run, tally = _found(data, name)
    show_fields(
        [("candidate", run.candidate), ("commit", run.commit or "-"), ("state", _state(data, name, tally)),
         ("nodes", tally.nodes),
         ("compared", tally.work), ("differ", _differ(tally)), ("errors", tally.candidate.errors),
         ("ended", tally.candidate.deaths), ("shed by the node", tally.shed_by_node),
         ("shed by the learner", tally.shed_here)]
    )  # fmt: skip


@app.command()
def stop(
    context: typer.Context,
    name: Name,
    remove: Annotated[bool, typer.Option(help="Remove what it has found, too.")] = False,
) -> None:
    """End a run; its report stays.

    Example: trunkline learn stop new-routes
    """
    data = settings_of(context).data_path
    try:
        was = runs.stop(data, name)
        if remove:
            runs.forget(data, name)
    except runs.CannotLearn as error:
        raise CommandError(str(error)) from None
    typer.echo(f"{name} {'has ended' if was else 'was not running'}")


@app.command(name="report")
def report_(
    context: typer.Context,
    name: Name,
    minimum: Annotated[int, typer.Option(help="Work that must have been compared.", min=1)] = report.MINIMUM,
    expect: Annotated[str, typer.Option(help=f"Where it is meant to differ: some of {','.join(ASPECTS)}.")] = "",
    more: Annotated[float, typer.Option(help="Per cent of CPU and latency above the control's.", min=0)] = (
        report.CPU_MORE
    ),
    commit: Annotated[str, typer.Option(help="Refuse unless the candidate is this version.")] = "",
    samples: Annotated[int, typer.Option(help="Disagreements shown of each kind.", min=0)] = 3,
) -> None:
    """Compare a candidate with production. Exit code 0: it agrees; 1: it does not, or too little was seen; 2: misuse.

    Example: trunkline release check last learning -- trunkline learn report new-routes
    """
    expected = frozenset(filter(None, expect.split(",")))
    if expected - set(ASPECTS):
        raise typer.BadParameter(f"--expect {expect}: there are {', '.join(ASPECTS)}")
    data = settings_of(context).data_path
    try:
        run, tally = runs.found(data, name)
    except runs.CannotLearn as error:
        raise typer.BadParameter(str(error)) from None
    if commit and not (run.commit and run.commit.startswith(commit)):
        raise typer.BadParameter(f"{name} follows {run.commit or 'no version of its own'}, not {commit}")
    verdict = report.judge(tally, minimum=minimum, expected=expected, more=more)
    _show(tally, samples)
    typer.echo(f"{name} ({run.candidate}) {verdict.told}")
    if verdict.problems:
        raise typer.Exit(1)


def _show(tally: Tally, samples: int) -> None:
    rows = [
        (aspect, count.agree, count.disagree, count.unclear)
        for aspect, count in tally.counts.items()
        if count.agree or count.disagree or count.unclear
    ]
    show_table(("what", "agree", "differ", "unclear"), rows)
    sides = (("candidate", tally.candidate), ("control", tally.control))
    show_table(
        ("side", "followed", "errors", "ended", "CPU ms each", "p50 ms", "p99 ms"), [_cost(*each) for each in sides]
    )
    shown: dict[str, int] = {}
    for one in tally.samples:
        shown[one.aspect] = shown.get(one.aspect, 0) + 1
        if shown[one.aspect] <= samples:
            typer.echo(f"{one.aspect} {one.sid}\n  production  {one.production}\n  candidate   {one.candidate}")


def _cost(name: str, cost: Cost) -> tuple[object, ...]:
    times = (cost.cpu_each_ms, cost.median_ms, cost.quantile(0.99))
    return (name, cost.done, cost.errors, cost.deaths, *(f"{one:.2f}" for one in times))


def _differ(tally: Tally) -> int:
    return sum(count.disagree for count in tally.counts.values()) + tally.candidate.errors + tally.candidate.deaths


def _state(data: Path, name: str, tally: Tally) -> str:
    running = runs.pid_of(runs.folder_of(data, name)) > 0
    return "was killed" if tally.state in ("learning", "starting") and not running else tally.state


def _found(data: Path, name: str) -> tuple[Run, Tally]:
    try:
        return runs.found(data, name)
    except runs.CannotLearn as error:
        raise CommandError(str(error)) from None
