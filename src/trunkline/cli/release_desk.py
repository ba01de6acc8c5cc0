"""What the commands of `trunkline release` share: the environment's evidence, its key and its nodes."""

import fcntl
import tempfile
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from trunkline.cli.common import DATA_MODE, CommandError, bootstrap, show_table
from trunkline.cli.doctor_cluster import read as read_cluster
from trunkline.model.clock import SystemClock
from trunkline.release.change import Git, NoChange
from trunkline.release.evidence import BadEvidence, Evidence, Records, Step
from trunkline.release.gates import gates, standing
from trunkline.release.people import BadKey, own_key, public_line
from trunkline.release.performance import CannotMeasure
from trunkline.release.risk import BadRisk, Risk, load
from trunkline.release.steps import MoveFailed, Node
from trunkline.settings import Settings

T = TypeVar("T")
KEY_FILE: Final = "release.key"
LOCK_FILE: Final = "release.lock"

EXPECTED = (NoChange, BadRisk, BadEvidence, BadKey, CannotMeasure, MoveFailed)
"""Whose text is for the operator."""


class Desk:
    """Works on the evidence of one environment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        folder = settings.data_path
        folder.mkdir(mode=DATA_MODE, parents=True, exist_ok=True)
        self._key = own_key(folder / KEY_FILE)
        self.public_key = public_line(self._key)
        self.records: Records
        """While `do` runs."""

    async def do(self, work: Callable[["Desk"], Awaitable[T]]) -> T:
        """Work with the archive open."""
        archive = bootstrap().open_archive(self._settings)
        try:
            self.records = Records(archive, self._key, self._settings.profile, SystemClock().now_ms)
            return await work(self)
        finally:
            await archive.close()

    async def add(self, release: str, standing_in: Collection[str], status: Step, by: str, what: dict[str, Any]) -> Any:
        """Add a step; returns the chain. Two commands of this machine come one after the other."""

        async def work(desk: Desk) -> list[Evidence]:
            with (self._settings.data_path / LOCK_FILE).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                chain = await found(desk, release, standing_in)
                await desk.records.add(chain, status, by, what)
                return chain

        return await self.do(work)

    async def running(self) -> str:
        """The commit of the last release that was done here; empty: none."""
        done = [chain for chain in (await self.records.all()).values() if standing(chain) == "done"]
        return max(done, key=lambda chain: chain[-1].created_ms)[0].head if done else ""

    async def base(self, repo: Path, given: str) -> str:
        """What a change is compared with: what runs here, and only where nothing has been released yet what is given.
        Whoever could choose it would choose what his change is judged by. Empty: neither. Raises CommandError."""
        runs = await self.running()
        if runs and given and Git(repo).commit(given) != runs:
            raise CommandError(f"{given} is not what runs here: that is {runs[:12]}, the last release that was done")
        return runs or given


@contextmanager
def opened(settings: Settings) -> Iterator[Desk]:
    """The desk; what it raises for the operator is one line. Raises CommandError."""
    try:
        yield Desk(settings)
    except EXPECTED as error:
        raise CommandError(str(error)) from None


async def found(desk: Desk, release: str, standing_in: Collection[str] = ()) -> list[Evidence]:
    """The chain of a release, by its SID or as `last`. Raises CommandError, BadEvidence."""
    if release == "last":
        release = next(iter(await desk.records.all()), "")
    chain = await desk.records.chain(release)
    if not chain:
        raise CommandError(f"there is no release {release or 'yet'}: see `trunkline release status`")
    if standing_in and chain[-1].status not in standing_in:
        raise CommandError(f"{chain[0].release} is {standing(chain)}")
    return chain


def risk_of(chain: Sequence[Evidence]) -> Risk:
    """The rules that the release was planned by."""
    return load(str(chain[0].what["risk"]), f"risk.toml of {chain[0].base[:12]}")


def authors_of(chain: Sequence[Evidence]) -> tuple[str, ...]:
    """Who wrote the change."""
    return tuple(chain[0].what["authors"])


def reasons_of(chain: Sequence[Evidence]) -> list[tuple[str, ...]]:
    """Class, file and rule, the riskiest first."""
    return [tuple(reason) for reason in chain[0].what["reasons"]]


def show_gates(chain: Sequence[Evidence]) -> None:
    """What the release must show, and whether it has."""
    risk, plan = risk_of(chain), chain[0]
    rows = [
        ("open" if gate.is_open else "shut", gate.name, gate.told) for gate in gates(risk, chain, authors_of(chain))
    ]
    if risk.must[plan.risk_class].canary:
        rows.append(("", "canary", "starts with one: `trunkline release start --canary`"))
    show_table(("gate", "of", "shown"), rows or [("open", "click", "nothing to show: `trunkline release start`")])


def when(one: Evidence) -> str:
    """A step's time."""
    return f"{datetime.fromtimestamp(one.created_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


def author(repo: Path) -> str:
    """Who works here, as git knows them; else the account's name."""
    try:
        return Git(repo).text("config", "user.email").strip()
    except NoChange:
        raise CommandError("git knows no user.email here: say --by") from None


def http_of(address: str) -> str:
    """The URL of a node's API."""
    return address if "://" in address else f"http://{address}"


def nodes_of(settings: Settings) -> list[Node]:
    """The members of the cluster, or this one node."""
    if not settings.cluster.enabled:
        server = settings.server
        host = "127.0.0.1" if server.host in ("0.0.0.0", "::", "") else server.host  # noqa: S104
        return [Node(settings.node.name, settings.node.zone, host, f"http://{host}:{server.port}")]
    _, members = read_cluster(settings)
    return [Node(one.name, one.zone, one.address.rpartition(":")[0], http_of(one.http)) for one in members]


@contextmanager
def work_trees(repo: Path, *commits: str) -> Iterator[tuple[Path, ...]]:
    """Folders with these commits checked out, removed at the end. Raises NoChange."""
    git = Git(repo)
    with tempfile.TemporaryDirectory(prefix="trunkline-release-") as folder:
        made: list[Path] = []
        try:
            for number, commit in enumerate(commits):
                path = Path(folder) / f"{number}-{commit[:12]}"
                git.text("worktree", "add", "--detach", "--quiet", str(path), commit)
                made.append(path)
            yield tuple(made)
        finally:
            for path in made:
                git.text("worktree", "remove", "--force", str(path))
