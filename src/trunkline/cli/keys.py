"""`trunkline keys`: API keys of an account, and the master key."""

import secrets
from typing import Annotated

import typer

from trunkline.cli.common import CommandError, account_of, bootstrap, database_of, run, settings_of, show_table
from trunkline.model.account import ApiKey
from trunkline.model.sid import API_KEY, new_sid

app = typer.Typer(help="API keys of an account; the master key.", no_args_is_help=True, rich_markup_mode=None)

SECRET_BYTES = 16
"""128 bits, 32 hex digits."""
LISTED = 1000
"""Keys shown of one account."""


@app.command()
def create(
    context: typer.Context,
    account: Annotated[str, typer.Argument(metavar="ACCOUNT_SID")],
    name: Annotated[str, typer.Option(help="FriendlyName.")] = "",
    main: Annotated[bool, typer.Option(help="A main key: may also manage accounts and keys.")] = False,
) -> None:
    """Make a key and print its SID and secret; the secret cannot be shown again.

    Example: trunkline keys create ACxxx --name billing
    """
    settings = settings_of(context)
    secret = secrets.token_hex(SECRET_BYTES)

    async def work() -> ApiKey:
        async with database_of(settings) as database:
            await account_of(database, account)
            key = ApiKey(
                sid=new_sid(API_KEY),
                account_sid=account,
                friendly_name=name,
                secret_hash=bootstrap().open_secrets(settings).hash_secret(secret),
                main=main,
            )
            await database.insert(key)
            return key

    typer.echo(f"{run(work()).sid} {secret}")


@app.command("list")
def list_(context: typer.Context, account: Annotated[str, typer.Argument(metavar="ACCOUNT_SID")]) -> None:
    """List an account's keys.

    Example: trunkline keys list ACxxx
    """
    settings = settings_of(context)

    async def work() -> list[ApiKey]:
        async with database_of(settings) as database:
            await account_of(database, account)
            return await database.find(ApiKey, {"account_sid": account}, limit=LISTED)

    rows = [(key.sid, key.friendly_name, "main" if key.main else "standard") for key in run(work())]
    show_table(("sid", "friendly_name", "kind"), rows)


@app.command()
def delete(context: typer.Context, sid: Annotated[str, typer.Argument(metavar="KEY_SID")]) -> None:
    """Delete a key; requests that carry it are refused from then on.

    Example: trunkline keys delete SKxxx
    """
    settings = settings_of(context)

    async def work() -> None:
        async with database_of(settings) as database:
            key = await database.get(ApiKey, sid)
            if key is None:
                raise CommandError(f"there is no key {sid}: see `trunkline keys list`")
            await database.delete(key)

    run(work())
    typer.echo(f"{sid} is deleted")


@app.command("rotate-master")
def rotate_master(context: typer.Context) -> None:
    """Seal all tokens and passwords with a new master key; the server must be stopped.

    A key file gets a new key before the old ones. Keys from the settings or the environment are taken as they are:
    put the new one first. The old ones must stay: API keys, stored responses and backups need them.

    Example: trunkline keys rotate-master
    """
    settings = settings_of(context)
    if not settings.data_path.is_dir():
        raise CommandError(f"there is no data in {settings.data_path}")
    wiring = bootstrap()
    try:
        resealed = run(wiring.rotate_master_key(settings))
    except wiring.CannotStart as error:
        raise CommandError(str(error)) from None
    typer.echo(f"{resealed} records are sealed with the first master key now")
