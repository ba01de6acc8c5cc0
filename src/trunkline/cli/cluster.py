"""`trunkline cluster`: which nodes there are, and who owns what."""

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from trunkline.cli.common import CommandError, settings_of, show_table
from trunkline.cli.doctor_cluster import read, wanted
from trunkline.cluster.placement import ROLES
from trunkline.cluster.records import ClusterMap, NodeRecord

NODE_COLUMNS = ("node", "zone", "region", "address", "http", "sip", "epoch", "since", "heir", "owns", "roles")
THING_COLUMNS = ("what", "node", "epoch", "inherited from")


def cluster(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show the nodes of the cluster and what each owns. Exit code 1 if something has no owner.

    Example: trunkline --config trunkline.toml cluster --json
    """
    settings = settings_of(context)
    if not settings.cluster.enabled:
        raise CommandError("this server is alone: cluster.enabled is false (docs/howto/cluster.md)")
    now, members = read(settings)
    if now is None:
        raise CommandError("no node has joined this cluster yet: start one with `trunkline serve`")
    nodes = {node.name: node for node in members}
    ownerless = sorted(name for name in {*wanted(settings), *now.things} if now.owner(name) is None)
    if as_json:
        shown = {"nodes": _nodes(now, nodes), "things": _things(now), "ownerless": ownerless, "version": now.version}
        typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
    else:
        show_table(NODE_COLUMNS, [tuple(map(str, row.values())) for row in _nodes(now, nodes)])
        show_table(THING_COLUMNS, [tuple(map(str, row.values())) for row in _things(now)])
        for name in ownerless:
            typer.echo(f"{name} has no owner")
    if ownerless:
        raise typer.Exit(1)


def _nodes(now: ClusterMap, nodes: dict[str, NodeRecord]) -> list[dict[str, Any]]:
    owns = {name: sum(owner.node == name for owner in now.things.values()) for name in now.members}
    return [
        {"node": name, "zone": node.zone, "region": node.region, "address": node.address, "http": node.http,
         "sip": node.sip, "epoch": now.members[name],
         "since": f"{datetime.fromtimestamp(node.started_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}", "heir": node.heir,
         "owns": owns[name], "roles": ",".join(node.roles or ROLES)}
        for name, node in sorted(nodes.items())
    ]  # fmt: skip


def _things(now: ClusterMap) -> list[dict[str, Any]]:
    found = [(name, owner) for name in sorted(now.things, key=_order) if (owner := now.owner(name)) is not None]
    return [
        {"what": name, "node": owner.node, "epoch": owner.epoch, "inherited from": owner.former}
        for name, owner in found
    ]  # fmt: skip


def _order(name: str) -> tuple[str, int, str]:
    kind, _, rest = name.partition("/")
    return (kind, int(rest), "") if rest.isdigit() else (kind, 0, rest)
