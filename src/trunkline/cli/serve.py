"""`trunkline serve` and `trunkline dev`: run the server."""

import importlib
from contextlib import suppress
from typing import Annotated

import typer

from trunkline import inherited
from trunkline.cli import log
from trunkline.cli.accounts import all_accounts, new_account
from trunkline.cli.common import database_of, run, serving, settings_of, supervising
from trunkline.cli.numbers import add_new, new_number
from trunkline.model.account import Account
from trunkline.settings import Settings, Sip
from trunkline.sip.transport_sockets import bind
from trunkline.voice import number_risks

DEV_NUMBERS = ("+12025550142", "+12025550143")
"""Numbers of the range that North America keeps for fiction."""


def serve(
    context: typer.Context,
    roles: Annotated[
        str, typer.Option(help="What this node of a cluster does, of api,messaging,voice,media; else node.roles.")
    ] = "",
) -> None:
    """Run the server until a signal ends it.

    Example: trunkline --config trunkline.toml serve --roles api,messaging
    """
    given = {"node": {"roles": [role.strip() for role in roles.split(",")]}} if roles else None
    settings = settings_of(context, given=given)
    _check_files(settings)
    _await_region(settings)
    _run(settings)


def _run(settings: Settings) -> None:
    """Be the supervisor, or the server itself."""
    supervise = supervising()
    if supervise.wanted(settings):
        supervise.supervise(settings)
    log.configure(settings.log)
    serving().serve(settings)


def _check_files(settings: Settings) -> None:
    """What calls read at their start, before there is a supervisor that would start them again and again. Raises
    SettingsError."""
    if settings.sip.enabled:
        number_risks.load(settings.voice.high_risk_file)


def _await_region(settings: Settings) -> None:
    """Wait, with no socket open but the API's, until this region is the active one, where there are several."""
    if settings.regions:
        log.configure(settings.log)
        importlib.import_module("trunkline.bootstrap_region").wait_until_active(settings)


def dev(
    context: typer.Context,
    calls: bool = typer.Option(True, help="Take calls too, from simulated phones unless there are [[trunks]]."),
) -> None:
    """Run the server with the development profile; the first start makes an account and two numbers.

    Example: trunkline dev
    """
    settings = settings_of(context, "development")
    if calls and not settings.sip.enabled:  # the supervised node gets the sockets, whatever its port says
        port = _sip_port(settings) if settings.sip.port == Sip().port else settings.sip.port
        settings = settings_of(context, "development", {"sip": {"enabled": True, "port": port}})
    _check_files(settings)
    if not inherited.supervised():  # else it has been said
        _introduce(settings, run(first_account(settings)))
    _run(settings)


def _introduce(settings: Settings, account: Account) -> None:
    """What one needs to know to try it."""
    typer.echo(f"Trunkline (development) on {settings.base_url}, data in {settings.data_path}")
    typer.echo(f"  account  {account.sid}")
    typer.echo(f"  token    {account.auth_token}")
    typer.echo(f"  numbers  {' '.join(DEV_NUMBERS)}")
    typer.echo(
        f"  try      curl -u {account.sid}:{account.auth_token} "
        f"{settings.base_url}/2010-04-01/Accounts/{account.sid}/Messages.json "
        f"-d From={DEV_NUMBERS[0].replace('+', '%2B')} -d To={DEV_NUMBERS[1].replace('+', '%2B')} -d Body=Hello"
    )


def _sip_port(settings: Settings) -> int:
    """The usual port if it is free, else 0: any."""
    with suppress(OSError):
        for one in bind(settings.sip.host, settings.sip.port):
            one.close()
        return settings.sip.port
    return 0


async def first_account(settings: Settings) -> Account:
    """The oldest active account; made, with numbers, where there is none."""
    async with database_of(settings, create=True) as database:
        for account in await all_accounts(database):
            if account.status == "active":
                return account
        account = new_account("Development")
        await database.insert(account)
        await add_new(database, [new_number(number, {"account_sid": account.sid}) for number in DEV_NUMBERS])
        return account
