"""`trunkline accounts`: make, look at and change accounts."""

import secrets
import string
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from trunkline.cli.common import CommandError, account_of, database_of, run, settings_of, show_fields, show_table
from trunkline.model.account import Account
from trunkline.model.sid import ACCOUNT, new_sid
from trunkline.storage.database import Database, Duplicate

app = typer.Typer(help="Make, look at and change accounts.", no_args_is_help=True, rich_markup_mode=None)

TOKEN_BYTES = 16
"""128 bits, 32 hex digits as Twilio's."""
MAX_NAME_CHARS = 64
"""Longest FriendlyName."""
MAX_SYSTEM_ID_CHARS = 15
MAX_MPS = 100_000
"""Highest account-wide rate, segments a second."""
MAX_DAYS = 36_500
"""Longest retention of an account's own."""
SMPP_PASSWORD_CHARS = 8
"""All that SMPP 3.4 (5.2.2) has room for: 47 bits; failed binds are delayed and few."""
PAGE = 1000
"""Records read at once."""

Sid = Annotated[str, typer.Argument(metavar="ACCOUNT_SID")]


def new_account(name: str, owner: str = "") -> Account:
    """A fresh active account with its own tokens and test credentials; owned by itself unless `owner` is given."""
    sid = new_sid(ACCOUNT)
    return Account(
        sid=sid,
        account_sid=sid,
        friendly_name=name,
        owner_account_sid=owner or sid,
        auth_token=secrets.token_hex(TOKEN_BYTES),
        test_account_sid=new_sid(ACCOUNT),
        test_auth_token=secrets.token_hex(TOKEN_BYTES),
    )


async def all_accounts(database: Database) -> list[Account]:
    """Every account, oldest first."""
    found: list[Account] = []
    while page := await database.find(Account, after=found[-1].sid if found else "", limit=PAGE):
        found += page
    return found


def _show(account: Account, *, secret: bool) -> None:
    show_fields(
        [
            ("sid", account.sid),
            ("friendly_name", account.friendly_name),
            ("status", account.status),
            ("owner", account.owner_account_sid),
            ("auth_token", account.auth_token if secret else "(hidden: --reveal shows it)"),
            ("test_sid", account.test_account_sid),
            ("test_auth_token", account.test_auth_token if secret else "(hidden)"),
            ("credit", f"{account.credit} {account.price_unit}"),
            ("retention_days", account.retention_days or "as archive.retention_days says"),
            ("messages_per_second", account.messages_per_second or "no limit of its own"),
            ("smpp_system_id", account.smpp_system_id or "none"),
        ]
    )


@app.command()
def create(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="FriendlyName.")] = "My account",
    parent: Annotated[str, typer.Option(help="SID of the account that owns it (makes a subaccount).")] = "",
) -> None:
    """Make an account and print its SID and auth token.

    Example: trunkline accounts create --name "Harbour Ltd"
    """
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise CommandError(f"--name must have 1 to {MAX_NAME_CHARS} characters")
    settings = settings_of(context)

    async def work() -> Account:
        async with database_of(settings, create=True) as database:
            if parent:
                await account_of(database, parent)
            if await database.count(Account) >= settings.limits.accounts:
                raise CommandError(f"limits.accounts ({settings.limits.accounts}) is reached: raise it first")
            account = new_account(name, parent)
            await database.insert(account)
            return account

    _show(run(work()), secret=True)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the accounts.

    Example: trunkline accounts list
    """
    settings = settings_of(context)

    async def work() -> list[Account]:
        async with database_of(settings) as database:
            return await all_accounts(database)

    rows = [(one.sid, one.friendly_name, one.status, one.owner_account_sid, one.credit) for one in run(work())]
    show_table(("sid", "friendly_name", "status", "owner", "credit"), rows)


@app.command()
def show(
    context: typer.Context, sid: Sid, reveal: Annotated[bool, typer.Option(help="Show the tokens.")] = False
) -> None:
    """Show one account.

    Example: trunkline accounts show ACxxx --reveal
    """
    settings = settings_of(context)

    async def work() -> Account:
        async with database_of(settings) as database:
            return await account_of(database, sid)

    _show(run(work()), secret=reveal)


def _change(context: typer.Context, sid: str, change: Callable[[Account], None]) -> Account:
    settings = settings_of(context)

    async def work() -> Account:
        async with database_of(settings) as database:
            account = await account_of(database, sid)
            change(account)
            await database.update(account)
            return account

    return run(work())


def _set_status(context: typer.Context, sid: str, status: str, refused: dict[str, str]) -> None:
    def change(account: Account) -> None:
        if account.status in refused:
            raise CommandError(f"{sid} is {account.status}: {refused[account.status]}")
        account.status = status

    typer.echo(f"{sid} is {_change(context, sid, change).status}")


CLOSED = {"closed": "a closed account stays closed"}


@app.command()
def suspend(context: typer.Context, sid: Sid) -> None:
    """Refuse its requests and sends until it is activated again.

    Example: trunkline accounts suspend ACxxx
    """
    _set_status(context, sid, "suspended", CLOSED)


@app.command()
def activate(context: typer.Context, sid: Sid) -> None:
    """Undo a suspension.

    Example: trunkline accounts activate ACxxx
    """
    _set_status(context, sid, "active", CLOSED)


@app.command()
def close(context: typer.Context, sid: Sid) -> None:
    """Close it for good (its landed messages stay until their retention ends).

    Example: trunkline accounts close ACxxx
    """
    _set_status(context, sid, "closed", {})


@app.command()
def credit(
    context: typer.Context, sid: Sid, amount: Annotated[str, typer.Argument(help="Decimal, may be negative.")]
) -> None:
    """Add to what was paid in.

    Example: trunkline accounts credit ACxxx 250.00
    """
    try:
        value = Decimal(amount)
    except InvalidOperation:
        raise CommandError(f"{amount} is no decimal amount, like 20 or -1.50") from None
    if not value.is_finite():
        raise CommandError(f"{amount} is no decimal amount, like 20 or -1.50")

    def change(account: Account) -> None:
        account.credit = format(Decimal(account.credit or "0") + value, "f")

    account = _change(context, sid, change)
    typer.echo(f"{sid} has paid in {account.credit} {account.price_unit}")


@app.command()
def limit(
    context: typer.Context,
    sid: Sid,
    mps: Annotated[int, typer.Option(help="Segments a second; 0: no limit of its own.", min=0, max=MAX_MPS)],
) -> None:
    """Limit what all of its senders together send in a second; more waits its turn.

    Example: trunkline accounts limit ACxxx --mps 50
    """

    def change(account: Account) -> None:
        account.messages_per_second = mps

    _change(context, sid, change)
    typer.echo(f"{sid} sends {mps} segments a second at most" if mps else f"{sid} has no limit of its own")


@app.command()
def retention(
    context: typer.Context,
    sid: Sid,
    days: Annotated[int, typer.Option(help="Days; 0: as archive.retention_days says.", min=0, max=MAX_DAYS)],
) -> None:
    """Keep its landed messages for so many days only; older ones leave within a day, and its usage with them.

    Example: trunkline accounts retention ACxxx --days 90
    """

    def change(account: Account) -> None:
        account.retention_days = days

    _change(context, sid, change)
    typer.echo(f"{sid} keeps messages " + (f"for {days} days" if days else "as archive.retention_days says"))


@app.command()
def token(
    context: typer.Context,
    sid: Sid,
    secondary: Annotated[bool, typer.Option(help="Make a secondary token beside the primary one.")] = False,
    promote: Annotated[bool, typer.Option(help="Make the secondary token the primary one.")] = False,
) -> None:
    """Show the auth token, or rotate it: --secondary, move the clients over, then --promote.

    Example: trunkline accounts token ACxxx --secondary
    """
    if secondary and promote:
        raise CommandError("give --secondary first, --promote once the clients use the new token")

    def change(account: Account) -> None:
        if secondary:
            account.secondary_auth_token = _fresh()
        elif promote:
            if not account.secondary_auth_token:
                raise CommandError(f"{sid} has no secondary token: make one with --secondary")
            account.auth_token, account.secondary_auth_token = account.secondary_auth_token, ""

    account = _change(context, sid, change) if secondary or promote else _read(context, sid)
    typer.echo(account.secondary_auth_token if secondary else account.auth_token)


@app.command()
def smpp(
    context: typer.Context,
    sid: Sid,
    system_id: Annotated[str, typer.Option(help="What its SMPP clients bind as, at most 15 characters.")] = "",
    binds: Annotated[int, typer.Option(help="Binds at once; 0 leaves them.", min=0, max=100)] = 0,
    new_password: Annotated[bool, typer.Option("--new-password", help="Replace the password.")] = False,
    off: Annotated[bool, typer.Option("--off", help="Let it bind no more.")] = False,
) -> None:
    """Let the account's own SMPP clients bind, and show how; bound ones leave when this is taken back.

    Example: trunkline accounts smpp ACxxx --system-id harbour --binds 4
    """
    if len(system_id) > MAX_SYSTEM_ID_CHARS or not (system_id.isascii() and system_id.isprintable()):
        raise CommandError(f"a system_id has at most {MAX_SYSTEM_ID_CHARS} ASCII characters (SMPP 3.4, 5.2.1)")

    def change(account: Account) -> None:
        if off:
            account.smpp_system_id, account.smpp_password = None, ""
            return
        account.smpp_system_id = system_id or account.smpp_system_id
        if not account.smpp_system_id:
            raise CommandError(f"{sid} has no system_id yet: give it one with --system-id")
        if new_password or not account.smpp_password:
            alphabet = string.ascii_letters + string.digits
            account.smpp_password = "".join(secrets.choice(alphabet) for _ in range(SMPP_PASSWORD_CHARS))
        account.smpp_max_binds = binds or account.smpp_max_binds

    try:
        account = _change(context, sid, change) if system_id or binds or new_password or off else _read(context, sid)
    except Duplicate:
        raise CommandError(f"the system_id {system_id} is another account's") from None
    show_fields(
        [
            ("system_id", account.smpp_system_id or "none"),
            ("password", account.smpp_password or "none"),
            ("binds", account.smpp_max_binds),
        ]
    )


def _fresh() -> str:
    return secrets.token_hex(TOKEN_BYTES)


def _read(context: typer.Context, sid: str) -> Account:
    settings = settings_of(context)

    async def work() -> Account:
        async with database_of(settings) as database:
            return await account_of(database, sid)

    return run(work())
