"""From node to node: the canaries first, watched beside the others, then zone by zone; and back if they do worse."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from trunkline.release.canary import LOOKS, Sample, Verdict, judge, together
from trunkline.release.evidence import Evidence, Records
from trunkline.settings.release import Release


class Node(NamedTuple):
    """Where a version runs."""

    name: str
    zone: str
    address: str
    http: str


class MoveFailed(Exception):
    """A node did not take a version, or does not serve with it; the text is one line."""


class BadCanary(Exception):
    """There is no such canary; the text is one line."""


class World(Protocol):
    """What a release acts on."""

    async def move(self, node: Node, version: str) -> None:
        """Put the version on the node; returns when it serves. Raises MoveFailed."""

    async def sample(self, node: Node) -> Sample:
        """What it has answered so far. Raises MoveFailed."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def say(self, text: str) -> None:
        """Tell the operator, in a line."""


def canaries(nodes: Sequence[Node], wanted: str) -> list[Node]:
    """The nodes that `zone=NAME` or a percentage (`25`) stands for: at least one, and never all, since somebody has to
    be compared with. Raises BadCanary."""
    if len(nodes) < 2:
        raise BadCanary("a canary needs another node to be compared with, and there is one node")
    if wanted.startswith("zone="):
        chosen = [node for node in nodes if node.zone == wanted.removeprefix("zone=")]
        if not chosen or len(chosen) == len(nodes):
            zones = ", ".join(sorted({node.zone for node in nodes}))
            raise BadCanary(f"{wanted} are {len(chosen)} of {len(nodes)} nodes; there are the zones {zones}")
        return chosen
    percent = wanted.removesuffix("%")
    if not (percent.isascii() and percent.isdigit() and 0 < int(percent) < 100):
        raise BadCanary(f"{wanted} is neither zone=NAME nor a percentage of the nodes from 1 to 99")
    count = max(1, len(nodes) * int(percent) // 100)
    return sorted(nodes, key=lambda node: (node.zone, node.name))[:count]


class Run:
    """One release on its way. `go` is the whole of it; every step is recorded before the next begins."""

    def __init__(self, records: Records, chain: list[Evidence], world: World, settings: Release, by: str) -> None:
        self._records = records
        self._chain = chain
        self._world = world
        self._settings = settings
        self._by = by
        self._moved: list[Node] = []

    async def go(self, nodes: Sequence[Node], first: Sequence[Node]) -> bool:
        """Whether the release is done; else it was rolled back."""
        plan = self._chain[0]
        named = [node.name for node in nodes]
        await self._add("started", {"nodes": named, "canaries": [node.name for node in first]})
        try:
            for node in first:
                await self._move(node, plan.head)
            if first and (problem := await self._watch(first, [node for node in nodes if node not in first])):
                return await self._back(problem)
            for node in sorted((node for node in nodes if node not in first), key=lambda node: (node.zone, node.name)):
                if who := await self._records.asked_to_abort(plan.release):
                    return await self._back(f"aborted by {who}")
                await self._move(node, plan.head)
        except MoveFailed as error:
            return await self._back(str(error))
        await self._add("done", {"nodes": named})
        return True

    async def back(self, nodes: Iterable[Node], reason: str) -> bool:
        """Take what a dead process had moved back. False, as `go`."""
        self._moved = list(nodes)
        return await self._back(reason)

    async def _move(self, node: Node, version: str) -> None:
        self._world.say(f"{node.name} ({node.zone}): {version[:12]}")
        self._moved.append(node)
        await self._world.move(node, version)
        await self._add("moved", {"node": node.name, "zone": node.zone, "version": version})

    async def _watch(self, new: Sequence[Node], old: Sequence[Node]) -> str:
        """What is wrong with the canaries; empty: nothing."""
        settings = self._settings
        began = [await self._samples(new), await self._samples(old)]
        verdict = Verdict(is_enough=False, worse="", told="")
        for look in range(1, LOOKS + 1):
            await self._world.sleep(settings.watch_s / LOOKS)
            now = [await self._samples(new), await self._samples(old)]
            new_ones, old_ones = (after.since(before) for after, before in zip(now, began, strict=True))
            verdict = judge(new_ones, old_ones, settings.significance, settings.minimum)
            self._world.say(f"look {look} of {LOOKS}: {verdict.told}")
            if who := await self._records.asked_to_abort(self._chain[0].release):
                return f"aborted by {who}"
            if verdict.worse:
                break
        problem = verdict.worse or ("" if verdict.is_enough else "too little traffic to judge the canaries")
        figures = {"told": verdict.told, "problem": problem, "significance": settings.significance}
        await self._add("judged", figures)
        return problem

    async def _samples(self, nodes: Sequence[Node]) -> Sample:
        return together([await self._world.sample(node) for node in nodes])

    async def _back(self, reason: str) -> bool:
        """Put the former version on every node that was touched, the last one first."""
        self._world.say(f"back: {reason}")
        stuck: dict[str, str] = {}
        for node in reversed(self._moved):
            try:
                await self._world.move(node, self._chain[0].base)
            except MoveFailed as error:
                stuck[node.name] = str(error)
        await self._add("rolled_back", {"reason": reason, "nodes": [node.name for node in self._moved], "stuck": stuck})
        return False

    async def _add(self, status: Any, what: dict[str, Any]) -> None:
        await self._records.add(self._chain, status, self._by, what)
