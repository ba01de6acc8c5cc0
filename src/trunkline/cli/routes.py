"""`trunkline routes`: the routing table, and what it does with a number."""

from typing import Annotated

import typer

from trunkline.cli.common import CommandError, settings_of, show_table
from trunkline.messaging.routing import Router
from trunkline.model import phone
from trunkline.model.sid import new_key
from trunkline.settings import Settings

app = typer.Typer(help="The routing table.", no_args_is_help=True, rich_markup_mode=None)


def router_of(settings: Settings) -> Router:
    """The router as the server builds it."""
    return Router(settings.routes, settings.rates, [one.name for one in settings.connectors])


@app.command()
def show(context: typer.Context) -> None:
    """Show the routes as configured.

    Example: trunkline routes show
    """
    settings = settings_of(context)
    rows = [
        (
            route.name,
            route.connector,
            " ".join(prefix or "*" for prefix in route.prefixes),
            " ".join(route.senders) or "*",
            " ".join(route.accounts) or "*",
            route.priority,
            route.weight,
            route.cost,
        )
        for route in settings.routes
    ]
    show_table(("route", "connector", "prefixes", "senders", "accounts", "priority", "weight", "cost"), rows)


@app.command("test")
def try_number(
    context: typer.Context,
    number: Annotated[str, typer.Argument(metavar="NUMBER")],
    sender: Annotated[str, typer.Option("--from", help="The sender.")] = "",
    account: Annotated[str, typer.Option(help="The account's SID.")] = "",
) -> None:
    """Say which routes a message to NUMBER would try, in order; equal weights are drawn anew for each message.

    Example: trunkline routes test +491701234567
    """
    settings = settings_of(context)
    to = phone.to_e164(number)
    if to is None:
        raise CommandError(f"{number} is no E.164 number, like +15551234567")
    router = router_of(settings)
    routes = router.candidates(account, sender, to, new_key())
    if not routes:
        raise CommandError(f"no route leads to {to}: add one to [[routes]]")
    rate = router.price(to)
    rows = [
        (order, route.name, route.connector, route.cost, route.price if route.price is not None else rate or "")
        for order, route in enumerate(routes, 1)
    ]
    shown = [(*row[:4], f"{row[4][0]} {row[4][1]}" if isinstance(row[4], tuple) else row[4]) for row in rows]
    show_table(("order", "route", "connector", "cost", "price"), shown)
