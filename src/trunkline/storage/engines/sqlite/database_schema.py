"""The control plane's tables: which records there are, and what is unique, indexed and sealed, all as data.

Every table derives from its Record struct, one column a field. A file made by an older release gets the columns it
lacks when it is opened (expand); columns of a newer release are left alone, since every statement names its columns
and every column has a default.
"""

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import apsw
import msgspec
import orjson

from trunkline.model.account import Account, ApiKey
from trunkline.model.dialing import DialingPermissions
from trunkline.model.numbers import (
    Alert,
    Application,
    Media,
    MessageFeedback,
    MessagingService,
    OptOut,
    PhoneNumber,
    ScheduledMessage,
    ServiceSender,
    ShortCode,
    StickySender,
    UsageTrigger,
)
from trunkline.model.record import Record
from trunkline.model.recording import Recording
from trunkline.model.sip_domain import (
    SipCredential,
    SipCredentialList,
    SipDomain,
    SipIpAccessControlList,
    SipIpAddress,
    SipMapping,
)
from trunkline.model.sip_trunk import OriginationUrl, SipTrunk
from trunkline.storage.secrets import Secrets

R = TypeVar("R", bound=Record)

TABLES: list[type[Record]] = [
    Account,
    Alert,
    ApiKey,
    Application,
    DialingPermissions,
    Media,
    MessageFeedback,
    MessagingService,
    OptOut,
    OriginationUrl,
    PhoneNumber,
    Recording,
    ScheduledMessage,
    ServiceSender,
    ShortCode,
    SipCredential,
    SipCredentialList,
    SipDomain,
    SipIpAccessControlList,
    SipIpAddress,
    SipMapping,
    SipTrunk,
    StickySender,
    UsageTrigger,
]
"""Every record that the database keeps. A record that is missing here cannot be stored."""

COPIED: frozenset[type[Record]] = frozenset(
    {
        Account, ApiKey, Application, DialingPermissions, MessagingService, OptOut, OriginationUrl, PhoneNumber,
        ServiceSender, ShortCode, SipCredential, SipDomain, SipIpAddress, SipMapping, SipTrunk,
    }
)  # fmt: skip
"""Of which every node has copies in memory: their changes are made known to the other nodes at once."""

UNIQUE: dict[str, list[tuple[str, ...]]] = {
    "accounts": [("smpp_system_id",)],
    "phone_numbers": [("phone_number",)],
    "short_codes": [("short_code",)],
    "service_senders": [("service_sid", "address", "iso_country")],
    "sip_credentials": [("credential_list_sid", "username")],
    "sip_domains": [("name",)],
    "sip_trunks": [("name",)],
}
"""Columns whose values (together) no two rows share; a null is equal to nothing."""

INDEXES: dict[str, list[tuple[str, ...]]] = {
    "accounts": [("owner_account_sid", "sid")],
    "alerts": [("account_sid", "sid"), ("created_ms",), ("resource_sid",)],
    "api_keys": [("account_sid", "sid")],
    "applications": [("account_sid", "sid")],
    "dialing_permissions": [("account_sid", "sid")],
    "media": [("message_sid", "sid"), ("account_sid", "sid")],
    "message_feedback": [("account_sid", "sid")],
    "messaging_services": [("account_sid", "sid")],
    "opt_outs": [("account_sid", "sid"), ("scope", "sid")],
    "phone_numbers": [("account_sid", "sid"), ("account_sid", "country", "type")],
    "recordings": [("account_sid", "sid"), ("call_sid", "sid"), ("deleted_ms",), ("status", "sid")],
    "scheduled_messages": [("account_sid", "sid"), ("status", "send_at_ms")],
    "service_senders": [("service_sid", "sid"), ("account_sid", "sid")],
    "short_codes": [("account_sid", "sid")],
    "sip_credential_lists": [("account_sid", "sid")],
    "sip_credentials": [("account_sid", "sid"), ("credential_list_sid", "sid")],
    "sip_domains": [("account_sid", "sid")],
    "sip_ip_access_control_lists": [("account_sid", "sid")],
    "sip_ip_addresses": [("account_sid", "sid"), ("ip_access_control_list_sid", "sid")],
    "sip_mappings": [("account_sid", "sid"), ("owner_sid", "purpose", "sid"), ("list_sid", "sid")],
    "sip_origination_urls": [("trunk_sid", "sid"), ("account_sid", "sid")],
    "sip_trunks": [("account_sid", "sid")],
    "sticky_senders": [("account_sid", "sid")],
    "usage_triggers": [("account_sid", "sid")],
}

SEALED: dict[str, frozenset[str]] = {
    "accounts": frozenset({"auth_token", "secondary_auth_token", "test_auth_token", "smpp_password"}),
    "sip_credentials": frozenset({"ha1_md5", "ha1_sha256"}),
}
"""Columns that are encrypted at rest (`trunkline.storage.secrets`), in clear in memory."""

_SQL_TYPES: dict[type, tuple[str, str]] = {
    str: ("text", "''"),
    int: ("integer", "0"),
    bool: ("integer", "0"),
    float: ("real", "0"),
    list: ("text", "'[]'"),
    dict: ("text", "'{}'"),
}
"""Python type -> SQL type and the value that stands for "nothing said"."""

OPERATORS: dict[str, str] = {
    "": "{0} is ?",
    "ge": "{0} >= ?",
    "gt": "{0} > ?",
    "le": "{0} <= ?",
    "lt": "{0} < ?",
    "ne": "{0} is not ?",
    "prefix": "{0} >= ? and {0} < ?",
    "contains": "instr({0}, ?) > 0",
    "in": "{0} in (select value from json_each(?))",
}
"""The operators of `Database.find`; a prefix is a range, so that an index serves it."""

_LAST_CHARACTER = "\U0010ffff"


class Column(msgspec.Struct, frozen=True):
    """One column as SQLite has it."""

    name: str
    base: type
    nullable: bool
    default: str
    """As an SQL literal."""

    @property
    def sql(self) -> str:
        kind, _ = _SQL_TYPES[self.base]
        return (
            f"{self.name} {kind} default null"
            if self.nullable
            else f"{self.name} {kind} not null default {self.default}"
        )


def _base_type(hint: Any) -> tuple[type, bool]:
    """The storable type behind an annotation, and whether None is allowed."""
    nullable = False
    if get_origin(hint) in (Union, UnionType):
        rest = [argument for argument in get_args(hint) if argument is not NoneType]
        nullable = len(rest) < len(get_args(hint))
        (hint,) = rest
    base = get_origin(hint) or hint
    if base not in _SQL_TYPES:
        raise TypeError(f"no column type for {hint}")
    return base, nullable


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bool | int | float):
        return repr(int(value)) if isinstance(value, bool) else repr(value)
    return "'" + orjson.dumps(value).decode().replace("'", "''") + "'"


def columns_of(kind: type[Record]) -> list[Column]:
    """The columns of a record, in the order of its fields."""
    hints = get_type_hints(kind)
    columns = []
    for field in msgspec.structs.fields(kind):
        base, nullable = _base_type(hints[field.name])
        default = _SQL_TYPES[base][1]
        if field.default is not msgspec.NODEFAULT and field.default is not None:
            default = _literal(field.default)
        columns.append(Column(field.name, base, nullable, default))
    return columns


class Table(Generic[R]):
    """The statements of one table and the way of a record into a row and back."""

    def __init__(self, kind: type[R], secrets: Secrets) -> None:
        self.kind = kind
        self.name = kind.TABLE
        self.columns = columns_of(kind)
        self.names = [column.name for column in self.columns]
        self._secrets = secrets
        self._sealed = [name for name in self.names if name in SEALED.get(self.name, ())]
        self._bools = [column.name for column in self.columns if column.base is bool]
        self._json = [column.name for column in self.columns if column.base in (list, dict)]
        self._plain = not (self._sealed or self._bools or self._json)
        listed = ", ".join(self.names)
        marks = ", ".join("?" * len(self.names))
        changed = [name for name in self.names if name not in ("sid", "rev")]
        self.insert_sql = f"insert into {self.name} ({listed}) values ({marks})"
        self.put_sql = f"{self.insert_sql} on conflict (sid) do update set " + ", ".join(
            f"{name} = excluded.{name}" for name in self.names if name != "sid"
        )
        self.update_sql = (
            f"update {self.name} set rev = rev + 1, {', '.join(f'{name} = :{name}' for name in changed)}"
            " where sid = :sid and rev = :rev"
        )
        self.delete_sql = f"delete from {self.name} where sid = ?"
        self.get_sql = f"select {listed} from {self.name} where sid = ?"
        self.select_sql = f"select {listed} from {self.name}"
        self.count_sql = f"select count(*) from {self.name}"

    def values(self, record: R) -> dict[str, Any]:
        """The record's columns as SQLite takes them, in column order."""
        row = {name: getattr(record, name) for name in self.names}
        for name in self._json:
            if row[name] is not None:
                row[name] = orjson.dumps(row[name]).decode()
        for name in self._sealed:
            if row[name]:
                row[name] = self._secrets.seal(row[name], self._context(name, record.sid))
        return row

    def record(self, row: Sequence[Any]) -> R:
        """The record that a row (in column order) holds."""
        fields = dict(zip(self.names, row, strict=True))
        if self._plain:
            return self.kind(**fields)
        for name in self._bools:
            if fields[name] is not None:
                fields[name] = bool(fields[name])
        for name in self._json:
            if fields[name] is not None:
                fields[name] = orjson.loads(fields[name])
        for name in self._sealed:
            if fields[name]:
                fields[name] = self._secrets.open(fields[name], self._context(name, fields["sid"]))
        return self.kind(**fields)

    def _context(self, column: str, sid: str) -> str:
        """Binds a sealed value to its place, so that it cannot be copied to another row."""
        return f"{self.name}.{column}:{sid}"

    def where(self, where: Mapping[str, Any] | None) -> tuple[str, list[Any]]:
        """A `where` clause (empty or with a leading blank), its bindings. Raises ValueError for an unknown column."""
        terms: list[str] = []
        bindings: list[Any] = []
        for key, value in (where or {}).items():
            name, _, operator = key.partition("__")
            if name not in self.names or operator not in OPERATORS:
                raise ValueError(f"{self.name} has no column or operator {key!r}")
            terms.append(OPERATORS[operator].format(name))
            if operator == "prefix":
                bindings += [value, value + _LAST_CHARACTER]
            else:
                bindings.append(orjson.dumps(list(value)).decode() if operator == "in" else value)
        return (" where " + " and ".join(terms) if terms else ""), bindings

    def page(
        self, where: Mapping[str, Any] | None, order: str, newest_first: bool, after: str, limit: int
    ) -> tuple[str, list[Any]]:
        """The statement of `Database.find`."""
        if order not in self.names:
            raise ValueError(f"{self.name} has no column {order!r}")
        clause, bindings = self.where(where)
        direction, beyond = ("desc", "<") if newest_first else ("asc", ">")
        if after:
            clause += " and " if clause else " where "
            if order == "sid":
                clause += f"sid {beyond} ?"
                bindings.append(after)
            else:
                clause += f"({order}, sid) {beyond} ((select {order} from {self.name} where sid = ?), ?)"
                bindings += [after, after]
        keys = f"sid {direction}" if order == "sid" else f"{order} {direction}, sid {direction}"
        return f"{self.select_sql}{clause} order by {keys} limit ?", [*bindings, limit]


def _index_name(table: str, columns: Sequence[str]) -> str:
    return f"{table}__{'__'.join(columns)}"


def _statements(kind: type[Record], have: frozenset[str]) -> list[str]:
    """What brings one table up to date; `have` are the columns it has (empty: there is no such table)."""
    table, columns = kind.TABLE, columns_of(kind)
    if have:
        made = [f"alter table {table} add column {column.sql}" for column in columns if column.name not in have]
    else:
        parts = [column.sql + (" primary key" if column.name == "sid" else "") for column in columns]
        made = [f"create table {table} ({', '.join(parts)})"]
    for names in UNIQUE.get(table, ()):
        made.append(f"create unique index if not exists {_index_name(table, names)} on {table} ({', '.join(names)})")
    for names in INDEXES.get(table, ()):
        made.append(f"create index if not exists {_index_name(table, names)} on {table} ({', '.join(names)})")
    return made


def expand(connection: apsw.Connection, tables: Sequence[type[Record]] = TABLES) -> list[str]:
    """Create what the file lacks, in one transaction; returns the statements that were run."""
    run: list[str] = []
    connection.execute("begin immediate")
    try:
        for kind in tables:
            rows = connection.execute(f"pragma table_info({kind.TABLE})").fetchall()
            run += _statements(kind, frozenset(str(row[1]) for row in rows))
        for statement in run:
            connection.execute(statement)
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise
    return run
