"""The live table: who owns what, as the engines themselves say."""

import contextlib
import http.client
import time
from typing import Any

from bench.processes import pss_mb
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lab import made, outside, patroni, probe, redis
from lab.cluster import Lab, say
from lab.plan import EDGE_PORT, HTTP_PORT, REDIS_PORT, Plan
from trunkline.cluster import records
from trunkline.storage.engines.valkey.poster import PREFIX

EVERY_S = 1.0


def show(plan: Plan, *, once: bool = False) -> None:
    """Start the lab and show the table until it is interrupted."""
    with Lab(plan) as lab:
        say("up")
        console = Console()
        if lab.customer:
            console.print(
                f"API http://{outside.EDGE}:{EDGE_PORT} (from namespace {plan.namespace('out')}), "
                + (f"SIP {outside.SIP_EDGE}, " if plan.edge else "")
                + f"account {lab.customer.sid}, token {lab.customer.token}; logs in {plan.run / 'hosts/log'}"
            )
        if once:
            shown = table(lab)
            shown.add_row("memory (PSS), MB", *memory(lab))
            console.print(shown)
            return
        with contextlib.suppress(KeyboardInterrupt), Live(table(lab), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(EVERY_S)
                live.update(table(lab), refresh=True)
        console.print("stopping")


def table(lab: Lab) -> Table:
    """One look."""
    shown = Table(title=f"{lab.plan.name}: {time.strftime('%H:%M:%S')}", expand=False)
    for column in ("", *(f"zone {zone.name}" for zone in lab.plan.zones)):
        shown.add_column(column)
    for cluster in lab.plan.clusters:
        found = {one["name"]: one for one in patroni.members(lab.plan, cluster)}
        shown.add_row(f"PostgreSQL {cluster.name}", *(_server(found.get(zone.name)) for zone in lab.plan.zones))
    first = redis.primary(lab.plan)
    roles = [_role(zone.store, zone == first) for zone in lab.plan.zones]
    shown.add_row("Redis", *roles)
    shown.add_row("etcd", *("up" if lab.store(zone).running("etcd") else "[red]down" for zone in lab.plan.zones))
    owned = owners(first.store if first else "")
    shown.add_row("node", *(_node(lab, zone.name) for zone in lab.plan.zones))
    shown.add_row("owns", *(owned.get(zone.name, "-") for zone in lab.plan.zones))
    counts = [sum(len(made.processes_in(host.namespace)) for host in lab.zone(zone.name)) for zone in lab.plan.zones]
    shown.add_row("processes", *map(str, counts))
    return shown


def memory(lab: Lab) -> list[str]:
    """What each zone takes, memory that processes share counted once."""
    pids = {zone.name: [pid for host in lab.zone(zone.name) for pid in made.processes_in(host.namespace)]
            for zone in lab.plan.zones}  # fmt: skip
    return [f"{pss_mb(found):.0f}" for found in pids.values()]


def _server(member: dict[str, Any] | None) -> str:
    if member is None:
        return "[red]?"
    text = f"{member['role']}, {member['state']}"
    lag = member.get("lag")
    text += f", {lag} B behind" if lag else ""
    return f"[bold green]{text}" if member["role"] == "leader" else text


def _role(address: str, first: bool) -> str:
    try:
        role = str(probe.redis(address, REDIS_PORT, "ROLE", timeout_s=0.3)[0])
    except (OSError, ValueError, TypeError, IndexError):
        return "[red]down"
    return f"[bold green]{role}" if first and role == "master" else role


def _node(lab: Lab, zone: str) -> str:
    if zone not in [one.name for one in lab.nodes]:
        return "-"
    if not lab.node(zone).running("trunkline"):
        return "[red]down"
    if lab.node(zone).paused:
        return "[yellow]stopped"
    (where,) = [one for one in lab.nodes if one.name == zone]
    try:
        status, answer = probe.ask(where.node, HTTP_PORT, "/readyz", timeout_s=0.3)
    except (OSError, http.client.HTTPException):
        return "[red]no answer"
    return "[bold green]ready" if status == 200 else f"[yellow]{answer}"[:60]


def owners(address: str) -> dict[str, str]:
    """Node -> what the cluster's map in the memory store gives it."""
    found: dict[str, list[str]] = {}
    if not address:
        return {}
    try:
        value = probe.redis(address, REDIS_PORT, "GET", PREFIX + records.MAP_KEY, timeout_s=0.3)
    except (OSError, ValueError):
        return {}
    now = records.decode_map(value.encode("latin-1") if value else None)
    for thing in sorted(now.things if now else ()):
        owner = now.owner(thing) if now else None
        if owner is not None:
            found.setdefault(owner.node, []).append(thing.removeprefix("p/"))
    return {name: " ".join(sorted(things, key=_order)) for name, things in found.items()}


def _order(thing: str) -> tuple[int, str]:
    return (int(thing), "") if thing.isdigit() else (1000, thing)
