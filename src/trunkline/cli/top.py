"""`trunkline top`: the pipeline live in the terminal, from the `/metrics` of one node or of all."""

import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable

from trunkline.cli.common import CommandError, settings_of, show_table
from trunkline.cli.doctor_cluster import read
from trunkline.cli.top_figures import Scrape, Table, shown, tables
from trunkline.settings import Settings

TIMEOUT_S = 5.0
"""Longest wait for a node's answer."""
MAX_NODES = 64
"""Nodes that are asked at the same time."""


def top(
    context: typer.Context,
    url: Annotated[
        list[str] | None, typer.Option(help="A node's address, e.g. http://10.0.0.5:8000; may be given several times.")
    ] = None,
    token: Annotated[str, typer.Option(help="Bearer token of /metrics; else server.metrics_token.")] = "",
    interval: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print what happened in one interval, and end.")] = False,
) -> None:
    """Show rates, queue depths, times of each stage, carriers, calls and late ticks, live. Ctrl-C ends it.

    Without --url: the server of these settings, in a cluster every member. Exit code 1 if no node answers.

    Example: trunkline top --url http://127.0.0.1:8000 --once --interval 5
    """
    settings = settings_of(context)
    urls = [_checked(one) for one in url or _nodes(settings)]
    token = token or settings.server.metrics_token or ""
    with ThreadPoolExecutor(max_workers=min(len(urls), MAX_NODES)) as pool:

        def look() -> dict[str, Scrape | None]:
            return dict(zip(urls, pool.map(lambda one: scrape(one, token), urls), strict=True))

        before = _there(look())
        if not before:
            raise CommandError(f"no answer from {', '.join(urls)}: is the server running, and the token right?")
        if once:
            time.sleep(interval)
            for table in shown(tables(before, look())):
                show_table(table.columns, table.rows)
            return
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                now = look()
                live.update(_page(shown(tables(before, now))), refresh=True)
                before = before | _there(now)


def scrape(url: str, token: str) -> Scrape | None:
    """One node's figures; None where it does not answer them."""
    request = urllib.request.Request(f"{url}/metrics")  # noqa: S310 (http or https: _checked)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            text = answer.read().decode()
    except (OSError, urllib.error.URLError, ValueError):
        return None
    try:
        return Scrape.parse(text, time.monotonic())
    except ValueError:
        return None


def _nodes(settings: Settings) -> Sequence[str]:
    """Where the node of these settings is; in a cluster, all its members. Raises CommandError."""
    if not settings.cluster.enabled:
        return [settings.base_url]
    _, members = read(settings)
    found = [member.http for member in members if member.http]
    if not found:
        raise CommandError("no node has joined this cluster yet: start one with `trunkline serve`")
    return found


def _checked(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"{url!r} is no address: it begins with http:// or https://")
    return url.rstrip("/").removesuffix("/metrics")


def _there(looked: Mapping[str, Scrape | None]) -> dict[str, Scrape]:
    return {url: scrape for url, scrape in looked.items() if scrape is not None}


def _page(all_tables: Sequence[Table]) -> Group:
    page = []
    for table in all_tables:
        shown_table = RichTable(*table.columns, expand=False)
        for row in table.rows:
            shown_table.add_row(*row)
        page.append(shown_table)
    return Group(*page)
