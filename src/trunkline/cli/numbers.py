"""`trunkline numbers`: the operator's inventory of phone numbers."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from trunkline.api.request import is_http_url
from trunkline.cli.common import CommandError, account_of, database_of, run, settings_of, show_table
from trunkline.messaging import inventory
from trunkline.model import phone
from trunkline.model.account import Account
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.settings import Settings
from trunkline.storage.database import Database

app = typer.Typer(help="The inventory of phone numbers.", no_args_is_help=True, rich_markup_mode=None)

BATCH = 500
"""Numbers written in one transaction."""
MAX_LINE_CHARS = 10_000
"""Longest line of an imported file."""
PAGE = 1000
"""Records read at once."""
NOT_IMPORTED = {"sid", "created_ms", "updated_ms", "rev", "bought_ms"}
COLUMNS = {field.name: field.type for field in msgspec.structs.fields(PhoneNumber) if field.name not in NOT_IMPORTED}
"""What a column of an imported file may be called."""
TYPES = {phone.LineType.MOBILE: "mobile", phone.LineType.TOLL_FREE: "tollfree", phone.LineType.NON_FIXED_VOIP: "voip"}
"""Line types that the inventory tells apart; the rest is `local`."""
Number = Annotated[str, typer.Argument(metavar="NUMBER", help="E.164, like +15551234567.")]


def new_number(text: str, values: Mapping[str, Any] | None = None) -> PhoneNumber:
    """An inventory entry; country, type and name follow from the number unless `values` says them. Raises
    CommandError."""
    number = phone.to_e164(text)
    if number is None:
        raise CommandError(f"{text} is no E.164 number, like +15551234567")
    given = {key: value for key, value in (values or {}).items() if key != "phone_number"}
    for key, value in given.items():
        if value and (key.endswith("_url") or key == "status_callback") and not is_http_url(value):
            raise CommandError(f"{key} {value!r} is no URL, like https://example.com/sms")
    about: dict[str, Any] = {
        "friendly_name": phone.national_format(number),
        "country": phone.country(number) or "",
        "type": TYPES.get(phone.line_type(number), "local"),
    }
    if given.get("account_sid"):
        about["bought_ms"] = SystemClock().now_ms()
    return PhoneNumber(sid=new_sid(PHONE_NUMBER), phone_number=number, **{**about, **given})


def read_csv(file: Path) -> Iterator[PhoneNumber]:
    """The numbers of a CSV file whose first line names columns; `phone_number` is needed. Raises CommandError with the
    line's number."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(_short(lines, file), strict=True)
            columns = list(rows.fieldnames or ())
            for column in columns:
                if column not in COLUMNS:
                    raise CommandError(f"{file}: no column may be called {column!r}; known are {', '.join(COLUMNS)}")
            if "phone_number" not in columns:
                raise CommandError(f"{file}: the first line must name the columns, phone_number among them")
            for row in rows:
                try:
                    yield new_number(row["phone_number"] or "", _values(row))
                except (CommandError, ValueError) as error:
                    raise CommandError(f"{file}: line {rows.line_num}: {error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: not a CSV file in UTF-8: {error}") from None


def _short(lines: Any, file: Path) -> Iterator[str]:
    while line := lines.readline(MAX_LINE_CHARS + 1):
        if len(line) > MAX_LINE_CHARS:
            raise CommandError(f"{file}: a line is longer than {MAX_LINE_CHARS} characters")
        yield line


def _values(row: Mapping[str | None, Any]) -> dict[str, Any]:
    values = {}
    for name, text in row.items():
        if name is None or text is None:
            raise ValueError("it has not as many cells as the first line")
        if not text.strip():
            continue
        try:
            values[name] = msgspec.convert(text.strip(), COLUMNS[name], strict=False)
        except msgspec.ValidationError:
            raise ValueError(f"{name} cannot be {text.strip()!r}") from None
    return values


async def add_new(database: Database, numbers: Sequence[PhoneNumber]) -> int:
    """Insert those that the inventory does not have; returns how many."""
    asked = [number.phone_number for number in numbers]
    there = await database.find(PhoneNumber, {"phone_number__in": asked}, limit=len(asked))
    known = {number.phone_number for number in there}
    fresh = {number.phone_number: number for number in numbers if number.phone_number not in known}
    if fresh:
        await database.insert(*fresh.values())
    return len(fresh)


@app.command("import")
def import_(context: typer.Context, file: Annotated[Path, typer.Argument(metavar="FILE.csv")]) -> None:
    """Add the numbers of a CSV file (columns as the resource's properties); those already there stay as they are.

    Example: trunkline numbers import numbers.csv
    """
    settings = settings_of(context)

    async def work() -> tuple[int, int]:
        async with database_of(settings, create=True) as database:
            room = settings.limits.numbers - await database.count(PhoneNumber)
            wanted = await _check(database, file, room, settings)
            added, batch = 0, []
            for number in read_csv(file):
                batch.append(number)
                if len(batch) == BATCH:
                    added += await add_new(database, batch)
                    batch = []
            return wanted, added + (await add_new(database, batch) if batch else 0)

    wanted, added = run(work())
    typer.echo(f"{added} added, {wanted - added} there already")


async def _check(database: Database, file: Path, room: int, settings: Settings) -> int:
    """Read the whole file before anything is written; returns its numbers. Raises CommandError."""
    owners: set[str] = set()
    count = 0
    for number in read_csv(file):
        count += 1
        if count > room:
            raise CommandError(f"{file}: more than limits.numbers ({settings.limits.numbers}) allows; raise it first")
        if number.account_sid and number.account_sid not in owners:
            await account_of(database, number.account_sid)
            owners.add(number.account_sid)
        _check_connector(number, settings)
    return count


def _check_connector(number: PhoneNumber, settings: Settings) -> None:
    if number.connector and settings.connector(number.connector) is None:
        names = ", ".join(one.name for one in settings.connectors)
        raise CommandError(f"{number.phone_number}: no connector is called {number.connector}; there is {names}")


@app.command()
def add(
    context: typer.Context,
    number: Number,
    account: Annotated[str, typer.Option(help="Give it to this account at once.")] = "",
    connector: Annotated[str, typer.Option(help="Messages from it leave by this connector.")] = "",
    sms_url: Annotated[str, typer.Option(help="Webhook for inbound messages.")] = "",
    voice_url: Annotated[str, typer.Option(help="Webhook for inbound calls.")] = "",
) -> None:
    """Add one number.

    Example: trunkline numbers add +15551234567 --account ACxxx
    """
    settings = settings_of(context)
    urls = {"sms_url": sms_url, "voice_url": voice_url}
    entry = new_number(number, {"account_sid": account, "connector": connector, **urls})
    _check_connector(entry, settings)

    async def work() -> None:
        async with database_of(settings, create=True) as database:
            if account:
                await account_of(database, account)
            if not await add_new(database, [entry]):
                raise CommandError(f"{entry.phone_number} is in the inventory already")

    run(work())
    typer.echo(f"{entry.sid} {entry.phone_number}")


@app.command("list")
def list_(
    context: typer.Context,
    account: Annotated[str, typer.Option(help="Only this account's.")] = "",
    available: Annotated[bool, typer.Option(help="Only those nobody has.")] = False,
) -> None:
    """List the inventory.

    Example: trunkline numbers list --available
    """
    settings = settings_of(context)
    where = {"account_sid": "" if available else account} if account or available else None

    async def work() -> list[PhoneNumber]:
        found: list[PhoneNumber] = []
        async with database_of(settings) as database:
            after = ""
            while page := await database.find(PhoneNumber, where, after=after, limit=PAGE):
                found += page
                after = page[-1].sid
        return found

    rows = [(n.phone_number, n.country, n.type, n.account_sid or "available", n.connector, n.sid) for n in run(work())]
    show_table(("number", "country", "type", "account", "connector", "sid"), rows)


async def _find(database: Database, text: str) -> PhoneNumber:
    number = phone.to_e164(text) or text
    found = await database.find(PhoneNumber, {"phone_number": number}, limit=1)
    if not found:
        raise CommandError(f"{text} is not in the inventory: see `trunkline numbers list`")
    return found[0]


@app.command()
def assign(
    context: typer.Context, number: Number, account: Annotated[str, typer.Argument(metavar="ACCOUNT_SID")]
) -> None:
    """Give an available number to an account.

    Example: trunkline numbers assign +15551234567 ACxxx
    """
    settings = settings_of(context)

    async def work() -> None:
        async with database_of(settings) as database:
            owner: Account = await account_of(database, account)
            entry = await _find(database, number)
            if entry.account_sid:
                raise CommandError(f"{number} belongs to {entry.account_sid}: release it first")
            entry.account_sid, entry.bought_ms = owner.sid, SystemClock().now_ms()
            await database.update(entry)

    run(work())
    typer.echo(f"{number} belongs to {account}")


@app.command()
def release(context: typer.Context, number: Number) -> None:
    """Take a number from its account; what that said of it is forgotten and it is available again.

    Example: trunkline numbers release +15551234567
    """
    settings = settings_of(context)

    async def work() -> None:
        async with database_of(settings) as database:
            entry = await _find(database, number)
            if not entry.account_sid:
                raise CommandError(f"{number} is available already")
            await inventory.release(database, entry)

    run(work())
    typer.echo(f"{number} is available")
