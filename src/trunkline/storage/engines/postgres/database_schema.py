"""The control plane's tables on PostgreSQL: the same records, columns, unique values and indexes as on SQLite.

Which records there are is said once, beside the SQLite engine; here is how PostgreSQL words it. Text compares by bytes
(`collate "C"`), as SQLite's does.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from trunkline.model.record import Record
from trunkline.storage.engines.postgres.session import Connection
from trunkline.storage.engines.sqlite.database_schema import INDEXES, TABLES, UNIQUE, Column, Table, columns_of
from trunkline.storage.secrets import Secrets

R = TypeVar("R", bound=Record)

_SQL_TYPES: dict[type, str] = {
    str: 'text collate "C"',
    int: "bigint",
    bool: "boolean",
    float: "double precision",
    list: "text",
    dict: "text",
}
OPERATORS: dict[str, str] = {
    "": "{0} = %s",
    "ge": "{0} >= %s",
    "gt": "{0} > %s",
    "le": "{0} <= %s",
    "lt": "{0} < %s",
    "ne": "{0} is distinct from %s",
    "prefix": "{0} >= %s and {0} < %s",
    "contains": "strpos({0}, %s) > 0",
    "in": "{0} = any(%s::{1}[])",
}
TABLE_NAMES = tuple(kind.TABLE for kind in TABLES)
_LAST_CHARACTER = "\U0010ffff"
MAX_NAME_BYTES = 63
"""Longest name of an index (NAMEDATALEN - 1); PostgreSQL cuts longer ones."""


def _quoted(name: str) -> str:
    return f'"{name}"'


def clean(value: Any) -> Any:
    """PostgreSQL's text has no NUL: it is kept as another character."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value


def _definition(column: Column) -> str:
    default = column.default
    if column.base is bool:
        default = "true" if default == "1" else "false"
    kind = f"{_quoted(column.name)} {_SQL_TYPES[column.base]}"
    return f"{kind} default null" if column.nullable else f"{kind} not null default {default}"


class PostgresTable(Table[R]):
    """The statements of one table, in PostgreSQL's words."""

    def __init__(self, kind: type[R], secrets: Secrets) -> None:
        super().__init__(kind, secrets)
        self._bases = {column.name: column.base for column in self.columns}
        self._nullable = {column.name for column in self.columns if column.nullable}
        names = [_quoted(name) for name in self.names]
        listed = ", ".join(names)
        marks = ", ".join(f"%({name})s" for name in self.names)
        self.insert_sql = f"insert into {self.name} ({listed}) values ({marks})"
        self.put_sql = f"{self.insert_sql} on conflict (sid) do update set " + ", ".join(
            f"{name} = excluded.{name}" for name in names if name != '"sid"'
        )
        changed = ", ".join(f"{_quoted(name)} = %({name})s" for name in self.names if name not in ("sid", "rev"))
        self.update_sql = f"update {self.name} set rev = rev + 1, {changed} where sid = %(sid)s and rev = %(rev)s"
        self.delete_sql = f"delete from {self.name} where sid = %s"
        self.get_sql = f"select {listed} from {self.name} where sid = %s"
        self.select_sql = f"select {listed} from {self.name}"

    def values(self, record: R) -> dict[str, Any]:
        """The record's columns as PostgreSQL takes them."""
        row = super().values(record)
        for name, value in row.items():
            base = self._bases[name]
            row[name] = clean(value) if value is None or base is not bool else bool(value)
        return row

    def _bound(self, name: str, value: Any) -> Any:
        """A value as its column's type: PostgreSQL does not compare a number with a truth."""
        base = self._bases[name]
        if value is None or base not in (bool, int):
            return clean(value)
        return base(value)

    def where(self, where: Mapping[str, Any] | None) -> tuple[str, list[Any]]:
        """A `where` clause (empty or with a leading blank), its bindings. Raises ValueError for an unknown column."""
        terms: list[str] = []
        bindings: list[Any] = []
        for key, value in (where or {}).items():
            name, _, operator = key.partition("__")
            if name not in self.names or operator not in OPERATORS:
                raise ValueError(f"{self.name} has no column or operator {key!r}")
            if value is None and operator in ("", "ne"):
                terms.append(f"{_quoted(name)} is {'not ' if operator else ''}null")
                continue
            kind = _SQL_TYPES[self._bases[name]].split(" collate")[0]
            terms.append(OPERATORS[operator].format(_quoted(name), kind))
            if operator == "prefix":
                bindings += [clean(value), clean(value) + _LAST_CHARACTER]
            elif operator == "in":
                bindings.append([self._bound(name, one) for one in value])
            else:
                bindings.append(self._bound(name, value))
        return (" where " + " and ".join(terms) if terms else ""), bindings

    def page(
        self, where: Mapping[str, Any] | None, order: str, newest_first: bool, after: str, limit: int
    ) -> tuple[str, list[Any]]:
        """The statement of `Database.find`. Nulls come first of all, as on SQLite."""
        if order not in self.names:
            raise ValueError(f"{self.name} has no column {order!r}")
        clause, bindings = self.where(where)
        direction, beyond = ("desc", "<") if newest_first else ("asc", ">")
        key = _quoted(order)
        if after:
            clause += " and " if clause else " where "
            if order == "sid":
                clause += f"sid {beyond} %s"
                bindings.append(clean(after))
            else:
                clause += f"({key}, sid) {beyond} ((select {key} from {self.name} where sid = %s), %s)"
                bindings += [clean(after), clean(after)]
        nulls = f" nulls {'last' if newest_first else 'first'}" if order in self._nullable else ""
        keys = f"sid {direction}" if order == "sid" else f"{key} {direction}{nulls}, sid {direction}"
        return f"{self.select_sql}{clause} order by {keys} limit %s", [*bindings, limit]


def _index_name(table: str, columns: Sequence[str]) -> str:
    return f"{table}__{'__'.join(columns)}"[:MAX_NAME_BYTES]


def _statements(kind: type[Record], have: frozenset[str]) -> list[str]:
    """What brings one table up to date; `have` are the columns it has (empty: there is no such table)."""
    table, columns = kind.TABLE, columns_of(kind)
    if have:
        lacking = [column for column in columns if column.name not in have]
        made = [f"alter table {table} add column {_definition(column)}" for column in lacking]
    else:
        parts = [_definition(column) + (" primary key" if column.name == "sid" else "") for column in columns]
        made = [f"create table {table} ({', '.join(parts)})"]
    for unique, indexes in (("unique ", UNIQUE), ("", INDEXES)):
        for names in indexes.get(table, ()):
            listed = ", ".join(map(_quoted, names))
            made.append(f"create {unique}index if not exists {_index_name(table, names)} on {table} ({listed})")
    return made


def expand(connection: Connection, tables: Sequence[type[Record]] = TABLES) -> list[str]:
    """Create what the database lacks, within the caller's transaction; returns the statements that were run."""
    run: list[str] = []
    sql = "select table_name, column_name from information_schema.columns where table_schema = current_schema()"
    have: dict[str, set[str]] = {}
    for table, column in connection.execute(sql).fetchall():
        have.setdefault(table, set()).add(column)
    for kind in tables:
        run += _statements(kind, frozenset(have.get(kind.TABLE, ())))
    for statement in run:
        connection.execute(statement.encode())
    return run
