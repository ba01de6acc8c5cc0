# ruff: noqa: S608  (statements are made of constants)
"""Refuses statements that would hold up the hot path, or lose what an old process needs.

A rule is a pattern on a statement without its comments, its literals and the bodies of its functions. That is enough
for the statements of pivots, which are short and ours; it is no parser of SQL. (`squawk` knows more rules of
PostgreSQL's; it knows neither SQLite, nor the step that a statement is of, nor that a backfill must be bounded.)
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from trunkline.storage.pivots.model import Engine, Pivot, Words

Step = Literal["expand", "backfill", "contract"]


class Finding(NamedTuple):
    """A statement that is refused."""

    rule: str
    why: str
    statement: str


class Rule(NamedTuple):
    name: str
    pattern: str
    why: str
    engines: tuple[Engine, ...] = ("postgres", "sqlite")
    steps: tuple[Step, ...] = ("expand", "backfill", "contract")


RULES = (
    Rule(
        "not-null-without-default", r"\badd column\b(?!.*\bdefault\b).*\bnot null\b",
        "ADD COLUMN ... NOT NULL needs a constant default: it fails on a table with rows",
    ),
    Rule(
        "volatile-default", r"\badd column\b.*\bdefault\s+(?!current_schema)(\(|[a-z_][a-z0-9_.]*\s*\(|current_time)",
        "a default that is computed rewrites the table under an exclusive lock: add the column without, then backfill",
    ),
    Rule(
        "serial", r"\badd column\b.*\b((big|small)?serial|generated\b)",
        "rewrites the table under an exclusive lock",
    ),
    Rule(
        "type-change", r"\balter column\b\s+\S+\s+(set data )?type\b",
        "rewrites the table under an exclusive lock: add a column of the new type, and backfill it", ("postgres",),
    ),
    Rule(
        "set-not-null", r"\bset not null\b",
        "reads the whole table under an exclusive lock: add a CHECK (... IS NOT NULL) NOT VALID, validate it, keep it",
        ("postgres",),
    ),
    Rule(
        "constraint-validates", r"\badd (constraint\b.*\b)?(check|foreign key)\b(?!.*\bnot valid\b)",
        "reads the whole table under an exclusive lock: say NOT VALID, then VALIDATE CONSTRAINT", ("postgres",),
    ),
    Rule(
        "constraint-builds-index", r"\badd (constraint\b.*\b)?(unique|primary key)\b(?!.*\busing index\b)",
        "builds an index under an exclusive lock: create it CONCURRENTLY, then ADD ... USING INDEX", ("postgres",),
    ),
    Rule(
        "index-not-concurrent", r"^create (unique )?index (?!concurrently)",
        "CREATE INDEX without CONCURRENTLY stops all writes meanwhile", ("postgres",),
    ),
    Rule(
        "drop-index-not-concurrent", r"^drop index (?!concurrently)",
        "DROP INDEX without CONCURRENTLY waits for, and stops, all use of the table", ("postgres",), ("expand",),
    ),
    Rule(
        "rename", r"^alter table\b.*\brename\b",
        "a rename fails every statement of the release before: add the new name, and keep both in step",
    ),
    Rule(
        "unbounded-write", r"^(update|delete)\b(?!.*\bwhere\b.*\bid (> |<= |= |between |in ))",
        "UPDATE or DELETE without a bound on id locks every row until its end",
    ),
    Rule(
        "drop-before-contract", r"\bdrop (column|table|function)\b|\bdrop constraint\b",
        "what an old process uses goes at contract only", ("postgres", "sqlite"), ("expand", "backfill"),
    ),
    Rule(
        "table-lock", r"^(lock table|truncate|vacuum full|vacuum \(full|cluster|reindex (?!.*concurrently))",
        "takes an exclusive lock for as long as it runs",
    ),
    Rule(
        "cascade", r"\bcascade\b", "CASCADE drops what is not named",
    ),
)  # fmt: skip
LOCKING = re.compile(r"^(alter table|create (or replace )?trigger|drop (table|trigger|function|column)|do \$)")
"""Statements that wait for a table's lock, and before which everybody else then waits."""
_LOCK_TIMEOUT = re.compile(r"^set (local )?lock_timeout\b(?!\s*(=|to)\s*'?0)")
_LITERAL = re.compile(r"'(?:[^']|'')*'")
_BODY = re.compile(r"\$(\w*)\$.*?\$\1\$", re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def plain(statement: str) -> str:
    """Lower case, one line, without comments, bodies and literals."""
    text = _COMMENT.sub(" ", _BODY.sub("$ $", _LITERAL.sub("''", statement)))
    if re.match(r"\s*create (temp )?trigger\b", text, re.IGNORECASE):
        text = re.sub(r"\bbegin\b.*", "", text, flags=re.DOTALL | re.IGNORECASE)  # SQLite's body
    return " ".join(text.lower().split()).rstrip("; ")


def lint(statements: Sequence[str], engine: Engine = "postgres", step: Step = "expand") -> Iterator[Finding]:
    """What is wrong with statements that are run in this order in one session."""
    timeout = False
    for statement in statements:
        text = plain(statement)
        timeout = timeout or bool(_LOCK_TIMEOUT.match(text))
        for rule in RULES:
            if engine in rule.engines and step in rule.steps and re.search(rule.pattern, text):
                yield Finding(rule.name, rule.why, text)
        if engine == "postgres" and LOCKING.match(text) and not timeout:
            yield Finding("no-lock-timeout", "waits for its lock without end, and everybody else behind it", text)


def split(text: str) -> list[str]:
    """The statements of a file."""
    found, start, depth = [], 0, ""
    for match in re.finditer(r"\$\w*\$|'(?:[^']|'')*'|--[^\n]*|;", text):
        mark = match.group()
        if mark.startswith("$"):
            depth = "" if mark == depth else depth or mark
        elif mark == ";" and not depth:
            found.append(text[start : match.end()])
            start = match.end()
    return [one.strip() for one in [*found, text[start:]] if plain(one)]


def fill_statement(pivot: Pivot, words: Words, shape: Literal["old", "new"]) -> str:
    """One batch of the backfill, between two ids that stand for themselves."""
    return f"update {pivot.table} set {words.side(shape).fill} where id > 0 and id <= 1 and {words.differs}"


def lint_pivot(pivot: Pivot, lock_timeout: str) -> Iterator[Finding]:
    """All statements of a pivot, as the engines run them."""
    engines: tuple[Engine, ...] = ("sqlite", "postgres")
    for engine in engines:
        words = pivot.words(engine)
        before = [lock_timeout] if engine == "postgres" else []
        for shape in ("old", "new"):
            side = words.old if shape == "old" else words.new
            yield from lint([*before, *side.add, *words.sync, *side.index], engine, "expand")
            yield from lint([fill_statement(pivot, words, "old" if shape == "old" else "new")], engine, "backfill")
            yield from lint([*before, *words.unsync, *side.drop], engine, "contract")
