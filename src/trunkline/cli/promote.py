"""`trunkline promote`: a release up the ladder of environments."""

from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.common import CommandError, run, settings_of
from trunkline.cli.release_desk import Desk, author, opened, show_gates
from trunkline.release import change as changes
from trunkline.release.evidence import Evidence, digest, parse
from trunkline.release.gates import LADDER, rung_below, standing
from trunkline.release.risk import class_of, classify, of_base, text_of_base


def promote(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Evidence that the environment below has exported.")],
    repo: Annotated[
        Path, typer.Option(help="The repository, where another version runs here than ran below.")
    ] = Path(),
    base: Annotated[str, typer.Option(help="The commit that runs here, where nothing has been released yet.")] = "",
    by: Annotated[str, typer.Option(help="Who does it; default: git's user.email.")] = "",
) -> None:
    """Plan in this environment what was done in the one below. A rung cannot be skipped.

    Example: trunkline promote release.jsonl
    """
    settings = settings_of(context)
    below = rung_below(settings.profile)
    if not below:
        raise CommandError(f"{settings.profile} is where releases begin; the ladder is {' - '.join(LADDER)}")
    if not settings.release.trusted_key:
        raise CommandError(f"release.trusted_key is not set: print it in {below} with `trunkline release key`")
    with opened(settings) as desk:
        shown = parse(file.read_bytes())
        _check(shown, below, settings.profile, settings.release.trusted_key)

        async def work(desk: Desk) -> list[Evidence]:
            runs = await desk.base(repo, base)
            first = shown[0]
            what, name, begin = dict(first.what), first.risk_class, first.base
            if runs and changes.Git(repo).commit(runs) != first.base:  # another change here, which may risk more
                risk = of_base(repo, runs)
                change = changes.read(repo, runs, first.head, risk.is_settings)
                reasons = classify(risk, change)
                name, begin = class_of(risk, reasons), change.base
                what = {
                    "risk": text_of_base(repo, runs), "authors": list(change.authors), "files": len(change.files),
                    "reasons": [[each.name, each.path, each.what] for each in reasons[:50]],
                }  # fmt: skip
            chain = [await desk.records.plan(begin, first.head, name, by or author(repo), what)]
            told = {"from": below, "release": first.release, "steps": len(shown), "last": digest(shown[-1])}
            await desk.records.add(chain, "promoted", by or author(repo), told)
            return chain

        chain = run(desk.do(work))
    typer.echo(f"{chain[0].release} is of class {chain[0].risk_class}")
    show_gates(chain)


def _check(shown: list[Evidence], below: str, here: str, trusted: str) -> None:
    """Raises CommandError unless it is the evidence of a release that was done in the environment below."""
    first = shown[0]
    if first.environment != below:
        raise CommandError(f"that was shown in {first.environment}: into {here} goes what was done in {below}")
    if first.key.split()[:2] != trusted.split()[:2]:
        raise CommandError(f"it is not signed by {below}'s key (release.trusted_key)")
    if standing(shown) != "done":
        raise CommandError(f"{first.release} is not done in {below}, but {standing(shown)}")
