"""What the SQLite engine of the `Database` promises beyond the primitive's contract."""

import asyncio
import importlib
import pkgutil
from typing import ClassVar

import apsw
import pytest

from trunkline import model
from trunkline.model.account import Account
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import PhoneNumber, ShortCode
from trunkline.model.record import Record
from trunkline.storage.engines.sqlite import database as database_module
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.engines.sqlite.database_schema import INDEXES, SEALED, TABLES, UNIQUE, columns_of, expand
from trunkline.storage.engines.sqlite.writer import connect
from trunkline.storage.secrets import CannotOpen, Secrets
from trunkline.storage.survives import CannotSurvive

AC = "AC" + "a" * 32
OLD, NEW = b"o" * 32, b"n" * 32


def open_at(path, *keys):
    return SqliteDatabase(path, SystemClock(), Secrets(keys or [OLD]))


def test_every_record_has_its_table():
    modules = [importlib.import_module(f"{model.__name__}.{one.name}") for one in pkgutil.iter_modules(model.__path__)]
    declared = {
        value.TABLE
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Record) and value is not Record
    }
    assert {kind.TABLE for kind in TABLES} == declared


@pytest.mark.parametrize("declaration", [UNIQUE, INDEXES, SEALED], ids=["unique", "indexes", "sealed"])
def test_declarations_name_columns_that_exist(declaration):
    columns = {kind.TABLE: {column.name for column in columns_of(kind)} for kind in TABLES}
    for table, entries in declaration.items():
        names = entries if isinstance(entries, frozenset) else {name for names in entries for name in names}
        assert names <= columns[table]


async def test_data_outlives_the_process(tmp_path):
    first = open_at(tmp_path / "db")
    await first.insert(Account(sid=AC, auth_token="secret"))
    await first.close()
    again = open_at(tmp_path / "db")
    assert (await again.get(Account, AC)).auth_token == "secret"
    await again.close()


def test_no_power_loss_promise_without_a_wal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotSurvive, match="journal_mode"):
        open_at(":memory:")


async def test_secrets_are_sealed_in_the_file(tmp_path):
    database = open_at(tmp_path / "db")
    account = Account(
        sid=AC, auth_token="clear-1", secondary_auth_token="clear-2", test_auth_token="clear-3", smpp_password="clear-4"
    )
    await database.insert(account)
    await database.update(account)
    await database.close()
    for file in tmp_path.iterdir():
        assert b"clear-" not in file.read_bytes()


async def test_a_sealed_value_cannot_be_moved_to_another_row(tmp_path):
    database = open_at(tmp_path / "db")
    other = "AC" + "b" * 32
    await database.insert(Account(sid=AC, auth_token="mine"), Account(sid=other, auth_token="theirs"))
    thief = connect(tmp_path / "db")
    thief.execute(
        "update accounts set auth_token = (select auth_token from accounts where sid = ?) where sid = ?", (AC, other)
    )
    thief.close()
    with pytest.raises(CannotOpen):
        await database.get(Account, other)
    await database.close()


async def test_rotation_reseals_with_the_new_key(tmp_path):
    database = open_at(tmp_path / "db", OLD)
    await database.insert(*(Account(sid=f"AC{i:032x}", auth_token=f"t{i}") for i in range(3)))
    await database.close()
    database = open_at(tmp_path / "db", NEW, OLD)
    assert await database.reseal() == 3
    await database.close()
    database = open_at(tmp_path / "db", NEW)
    assert [account.auth_token for account in await database.find(Account)] == ["t0", "t1", "t2"]
    await database.close()


class OldThing(Record, kw_only=True):
    TABLE: ClassVar[str] = "things"

    name: str


class NewThing(Record, kw_only=True):
    TABLE: ClassVar[str] = "things"

    name: str
    colour: str = "it's grey"
    sizes: list[int] = []
    heavy: bool = True
    weight: float | None = None


def test_an_older_file_gets_the_columns_it_lacks_and_an_older_release_goes_on(tmp_path):
    connection = connect(tmp_path / "db")
    assert len(expand(connection, [OldThing])) == 1
    connection.execute("insert into things (sid, name) values ('T1', 'old')")
    assert len(expand(connection, [NewThing])) == 4
    row = connection.execute("select name, colour, sizes, heavy, weight, rev from things").fetchall()
    assert row == [("old", "it's grey", "[]", 1, None, 0)]
    assert expand(connection, [NewThing]) == []
    assert expand(connection, [OldThing]) == []
    connection.execute("insert into things (sid, name) values ('T2', 'by the older release')")
    connection.close()


def test_a_failed_expansion_leaves_the_file_as_it_was(tmp_path):
    class Broken(Record, kw_only=True):
        TABLE: ClassVar[str] = "select"

    connection = connect(tmp_path / "db")
    with pytest.raises(apsw.SQLError):
        expand(connection, [OldThing, Broken])
    assert connection.execute("select name from sqlite_master").fetchall() == []
    connection.close()


async def test_commits_of_another_process_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "FOREIGN_POLL_S", 0.01)
    server, command_line = open_at(tmp_path / "db"), open_at(tmp_path / "db")
    heard = asyncio.Event()
    calls = []

    def changed(sids):
        calls.append(list(sids))
        if not sids:
            heard.set()

    server.watch(ShortCode, changed)
    await server.insert(ShortCode(sid="SC1", short_code="12345"))
    await command_line.insert(ShortCode(sid="SC2", short_code="12346"))
    await asyncio.wait_for(heard.wait(), 60)
    assert calls == [["SC1"], []]
    await server.close()
    await command_line.close()


async def test_a_lookup_by_account_uses_an_index(tmp_path):
    database = open_at(tmp_path / "db")
    connection = connect(tmp_path / "db", read_only=True)
    table = database._tables[PhoneNumber]
    for where in ({"account_sid": AC}, {"phone_number": "+1"}, {"phone_number__prefix": "+1202"}):
        statement, bindings = table.page(where, "sid", False, "", 50)
        plan = connection.execute("explain query plan " + statement, bindings).fetchall()
        assert "USING INDEX" in plan[0][3], (where, plan)
    connection.close()
    await database.close()


async def test_close_twice_and_refuse_afterwards(tmp_path):
    database = open_at(tmp_path / "db")
    await database.close()
    await database.close()
    with pytest.raises(Exception, match="closed"):
        await database.insert(Account(sid=AC))


async def test_commit_of_another_process_before_the_first_look_is_noticed(tmp_path):
    ours, theirs = open_at(tmp_path / "db"), open_at(tmp_path / "db")
    await ours.insert(Account(sid="AC" + "1" * 32))
    await theirs.insert(Account(sid="AC" + "2" * 32))
    told = asyncio.Event()
    ours.watch(Account, lambda sids: told.set() if not sids else None)
    await asyncio.wait_for(told.wait(), 60)
    await theirs.close()
    await ours.close()
