"""The base of every control-plane record that the `Database` stores.

A record is a msgspec Struct; each field is a column of the table that `TABLE` names, so that a schema change is
a column change that can be expanded, backfilled and contracted. `sid`, `account_sid`, times and `rev` are common.
"""

from typing import ClassVar

import msgspec


class Record(msgspec.Struct, kw_only=True):
    """`sid` is the primary key; `rev` counts updates and guards them (compare-and-set)."""

    TABLE: ClassVar[str] = ""

    sid: str
    account_sid: str = ""
    created_ms: int = 0
    updated_ms: int = 0
    rev: int = 0
