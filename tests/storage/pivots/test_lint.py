"""Statements that would hold up the hot path are refused; those of the shipped pivots are not among them."""

import pytest

from trunkline.cli.schema import LOCK_TIMEOUT
from trunkline.storage.engines.postgres import pivots as postgres
from trunkline.storage.pivots import PIVOTS
from trunkline.storage.pivots.lint import lint, lint_pivot, split

BAD = [
    ("alter table t add column c text not null", "not-null-without-default"),
    ("alter table t add column c timestamptz default now()", "volatile-default"),
    ("alter table t add column c uuid default gen_random_uuid() not null", "volatile-default"),
    ("alter table t add column c int default (1 + random())", "volatile-default"),
    ("alter table t add column c bigserial", "serial"),
    ("alter table t add c bigint generated always as identity, add column d bigint generated always as (1) stored",
     "serial"),
    ("alter table t alter column c type bigint", "type-change"),
    ("ALTER TABLE t ALTER COLUMN c SET DATA TYPE text", "type-change"),
    ("alter table t alter column c set not null", "set-not-null"),
    ("alter table t add constraint c check (x > 0)", "constraint-validates"),
    ("alter table t add foreign key (x) references u (id)", "constraint-validates"),
    ("alter table t add constraint c unique (x)", "constraint-builds-index"),
    ("create index i on t(c)", "index-not-concurrent"),
    ("create unique index if not exists i on t(c)", "index-not-concurrent"),
    ("drop index i", "drop-index-not-concurrent"),
    ("alter table t rename column a to b", "rename"),
    ("update t set a = 1", "unbounded-write"),
    ("delete from t where a = 1", "unbounded-write"),
    ("alter table t drop column a", "drop-before-contract"),
    ("lock table t", "table-lock"),
    ("truncate t", "table-lock"),
    ("drop table t cascade", "cascade"),
]  # fmt: skip
GOOD = [
    "alter table t add column c text",
    "alter table t add column c text not null default 'it''s now()'",
    "alter table t add column c int default 5, alter column d set default ''",
    "create index concurrently if not exists i on t(c) where c is not null",
    "alter table t add constraint c check (x is not null) not valid",
    "alter table t validate constraint c",
    "alter table t add constraint c unique using index i",
    "update t set a = 1 where id > 5 and id <= 10",
    "create or replace function f() returns trigger language plpgsql as $$ begin update t set a = 1; end $$",
    "-- alter table t rename to u\nselect 1",
]


@pytest.mark.parametrize(("statement", "rule"), BAD)
def test_a_dangerous_statement_is_refused(statement, rule):
    assert rule in {one.rule for one in lint(["set lock_timeout = '100ms'", statement])}


@pytest.mark.parametrize("statement", GOOD)
def test_a_harmless_one_is_not(statement):
    assert list(lint(["set local lock_timeout = 100", statement])) == []


def test_without_a_lock_timeout_a_statement_that_locks_is_refused():
    (found,) = lint(["alter table t add column c text"])
    assert found.rule == "no-lock-timeout"
    assert [one.rule for one in lint(["set lock_timeout = 0", "alter table t add column c text"])] == [found.rule]
    assert list(lint(["create index concurrently i on t(c)"])) == []


def test_contract_may_drop_and_sqlite_has_rules_of_its_own():
    assert list(lint(["set lock_timeout = 100", "alter table t drop column a"], step="contract")) == []
    assert list(lint(["create index i on t(c)"], "sqlite")) == []
    assert [one.rule for one in lint(["alter table t rename column a to b"], "sqlite")] == ["rename"]


@pytest.mark.parametrize("pivot", PIVOTS, ids=lambda pivot: pivot.name)
def test_shipped_pivots_are_clean(pivot):
    assert postgres.LOCK_TIMEOUT == LOCK_TIMEOUT
    assert list(lint_pivot(pivot, LOCK_TIMEOUT)) == []
    assert [one.number for one in PIVOTS] == list(range(1, len(PIVOTS) + 1))


def test_a_file_is_cut_into_statements():
    text = "-- a; b\nselect ';'; create function f() as $x$ begin; $$ ; end $x$;\n\nselect 2"
    assert [one.split("\n")[-1] for one in split(text)] == [
        "select ';';", "create function f() as $x$ begin; $$ ; end $x$;", "select 2",
    ]  # fmt: skip
