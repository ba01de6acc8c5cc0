"""`trunkline rollout`: every node of the cluster on another version, one at a time, zone by zone.

Each node's own supervisor does the work (trunkline.supervisor.handover) and goes back by itself where its new process
does not begin. This command goes from node to node, waits until each is well again, looks at what share of requests
fails, and at what share takes longer than 99 % did before, and puts every node back that it had done when something is
wrong.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from trunkline.cli.common import CommandError, bootstrap, run, settings_of
from trunkline.cli.doctor_cluster import read
from trunkline.cluster.peers import PeerError, Peers, PeerUnavailable
from trunkline.cluster.records import NodeRecord
from trunkline.release.canary import Sample, fisher
from trunkline.supervisor.handover import Patience

NAME = "rollout"
"""Under which this command speaks to the nodes."""
KIND = "supervisor"
"""Of the calls between nodes (trunkline.bootstrap_handover)."""
ASK_S = 5.0
LOOK_S = 0.5
LEAST_REQUESTS = 20
"""Of fewer answers, no share is judged."""
QUANTILE = 0.99
CHANCE = 0.001
"""More slow requests than before are believed where they are so unlikely to be by chance."""


class Failed(Exception):
    """The rollout stops; why."""


Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass
class Rollout:
    """See the module. `ask(node, order)` is answered by that node."""

    ask: Ask
    say: Callable[[str], None]
    patience_s: float = 300.0
    """For one node to be replaced and well again."""
    watch_s: float = 10.0
    most_errors: float = 0.01
    most_slow: float = 0.05
    former: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each node said before it was replaced."""
    done: list[tuple[str, str]] = field(default_factory=list)
    """Nodes on the new version, and what they ran before."""
    look_s: float = LOOK_S

    async def over(self, zones: list[tuple[str, list[str]]], python: str, grace_s: float) -> bool:
        """All of it; False when everything was put back. An empty `python`: each node's own (a restart)."""
        try:
            for zone, nodes in zones:
                self.say(f"zone {zone or '(none)'}: {', '.join(nodes)}")
                for node in nodes:
                    await self.one(node, python, grace_s)
                await self.watch()
        except Failed as why:
            self.say(f"stopped: {why}")
            await self.back(grace_s)
            return False
        return True

    async def one(self, node: str, python: str, grace_s: float) -> None:
        """One node. Raises Failed."""
        before = await self.status(node)
        if not before.get("well", False):
            raise Failed(f"{node} is not well before anything was done: {before.get('why')}")
        self.former[node] = before
        ran = next((child["python"] for child in before.get("children", ()) if child["name"] == "node"), "")
        accepted = await self.ask(node, {"do": "upgrade", "python": python, "grace_s": grace_s})
        if accepted.get("error"):
            raise Failed(f"{node}: {accepted['error']}")
        after = await self._until_done(node, int(before.get("handovers", 0)))
        last = after.get("last", {})
        if not last.get("ok"):
            raise Failed(f"{node} went back by itself: {last.get('why')}")
        self.done.append((node, ran))
        await self._until_well(node)
        self.say(
            f"  {node}: process {_pid(before)} -> {_pid(after)}, connections waited {last.get('pause_s', 0):.2f} s"
        )

    async def _until_done(self, node: str, handovers: int) -> dict[str, Any]:
        end = time.monotonic() + self.patience_s
        while time.monotonic() < end:
            try:
                now = await self.status(node)
            except Failed:  # between two processes
                now = {}
            if int(now.get("handovers", 0)) > handovers:
                return now
            await asyncio.sleep(self.look_s)
        raise Failed(f"{node} was not done within {self.patience_s:g} s")

    async def _until_well(self, node: str) -> None:
        end = time.monotonic() + self.patience_s
        why = "it does not answer"
        while time.monotonic() < end:
            try:
                now = await self.status(node)
                if now.get("well"):
                    return
                why = str(now.get("why"))
            except Failed as away:
                why = str(away)
            await asyncio.sleep(self.look_s)
        raise Failed(f"{node} is not well again: {why}")

    async def status(self, node: str) -> dict[str, Any]:
        """What a node says of itself. Raises Failed."""
        found = await self.ask(node, {"do": "status"})
        if found.get("error"):
            raise Failed(f"{node}: {found['error']}")
        return found

    async def watch(self) -> None:
        """Whether the nodes that are done go on well. Raises Failed."""
        before = {node: await self.status(node) for node, _ in self.done}
        await asyncio.sleep(self.watch_s)
        for node, first in before.items():
            now = await self.status(node)
            if not now.get("well"):
                raise Failed(f"{node} is not well any more: {now.get('why')}")
            asked = int(now.get("requests", 0)) - int(first.get("requests", 0))
            failed = int(now.get("errors", 0)) - int(first.get("errors", 0))
            if asked >= LEAST_REQUESTS and failed > self.most_errors * asked:
                raise Failed(f"{node}: {failed} of {asked} requests failed")
            if why := slower(since(now, first), since(self.former[node], {}), self.most_slow):
                raise Failed(f"{node}: {why}")

    async def back(self, grace_s: float) -> None:
        """Put every node that is done on what it ran before, the last first."""
        for node, ran in reversed(self.done):
            try:
                before = await self.status(node)
                await self.ask(node, {"do": "upgrade", "python": ran, "grace_s": grace_s})
                await self._until_done(node, int(before.get("handovers", 0)))
                self.say(f"  {node}: back on {ran}")
            except Failed as why:
                self.say(f"  {node} could not be put back: {why}")


def since(now: dict[str, Any], before: dict[str, Any]) -> Sample:
    """What a node has answered between two words of it. One of a release that does not tell times has none."""
    earlier = before.get("within", {})
    within = {float(bound): float(count - earlier.get(bound, 0)) for bound, count in now.get("within", {}).items()}
    return Sample(float(now.get("requests", 0)) - float(before.get("requests", 0)), buckets=within)


def slower(new: Sample, old: Sample, most: float) -> str:
    """Whether more than `most` of the requests took longer than 99 % did before, in a line; empty: no."""
    usual = (bound for bound, count in sorted(old.buckets.items()) if count >= QUANTILE * old.requests)
    bound = next(usual, math.inf)
    if math.isinf(bound) or bound not in new.buckets or min(new.requests, old.requests) < LEAST_REQUESTS:
        return ""
    late, late_before = new.requests - new.buckets[bound], old.requests - old.buckets[bound]
    if late <= most * new.requests or fisher(late, new.requests, late_before, old.requests) >= CHANCE:
        return ""
    return f"{late:.0f} of {new.requests:.0f} requests took longer than {bound:g} s; before, 99 % did not"


def rollout(
    context: typer.Context,
    python: Annotated[Path | None, typer.Option(help="Interpreter of the new version (on each node).")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="The version that each node runs, anew.")] = False,
    grace: Annotated[float, typer.Option(help="Seconds that a supervisor watches its new process.")] = Patience.grace_s,
    watch: Annotated[float, typer.Option(help="Seconds that requests are watched after each zone.")] = 10.0,
    most_errors: Annotated[float, typer.Option(help="Share of requests that may fail (5xx).")] = 0.01,
    most_slow: Annotated[float, typer.Option(help="Share that may take longer than 99 % did before.")] = 0.05,
) -> None:
    """Put every node of the cluster on another version: one at a time, zone by zone, each only once the one before is
    well. Stops by itself when something is wrong, and puts back what was done. Exit code 1 then.

    Example: trunkline --config trunkline.toml rollout --python /opt/trunkline-2/bin/python
    """
    settings = settings_of(context)
    if not settings.cluster.enabled:
        raise CommandError("this server is alone (cluster.enabled is false): use `trunkline upgrade`")
    if restart == (python is not None):
        raise CommandError("say either --python PATH or --restart")
    _, nodes = read(settings)
    if not nodes:
        raise CommandError("no node has joined this cluster yet")
    peers_of = bootstrap().tls_contexts(settings)

    async def work() -> bool:
        peers = Peers(NAME, str(settings.cluster.secret), *peers_of)
        peers.know({one.name: one.address for one in nodes})
        try:
            made = Rollout(_asking(peers), typer.echo, watch_s=watch, most_errors=most_errors, most_slow=most_slow)
            return await made.over(by_zone(nodes), str(python.absolute()) if python else "", grace)
        finally:
            await peers.close()

    if not run(work()):
        raise typer.Exit(1)
    typer.echo("done")


def by_zone(nodes: list[NodeRecord]) -> list[tuple[str, list[str]]]:
    """Zones and their nodes, by name."""
    zones = sorted({node.zone for node in nodes})
    return [(zone, sorted(node.name for node in nodes if node.zone == zone)) for zone in zones]


def _pid(status: dict[str, Any]) -> int:
    return next((child["pid"] for child in status.get("children", ()) if child["name"] == "node"), 0)


def _asking(peers: Peers) -> Ask:
    async def ask(node: str, order: dict[str, Any]) -> dict[str, Any]:
        try:
            found: dict[str, Any] = orjson.loads(await peers.call(node, KIND, orjson.dumps(order), ASK_S))
        except (PeerUnavailable, PeerError, ValueError) as error:
            return {"error": str(error) or type(error).__name__}
        return found

    return ask
