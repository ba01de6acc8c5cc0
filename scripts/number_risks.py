"""Writes `src/trunkline/voice/number_risks.txt` anew: `python scripts/number_risks.py` (a minute). Its head stays.

Where the plan of a country has premium, shared-cost or (outside North America) personal numbers, it says so by regular
expressions (libphonenumber's metadata, Apache-2.0). This walks their digits and prints the shortest prefixes below
which nothing else lies. Where other kinds of numbers lie below a prefix of MAX_DIGITS too, it is left out.
"""

from pathlib import Path
from re import _constants as kind  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import phonenumbers
from phonenumbers import PhoneMetadata

MAX_DIGITS = 8
RISKY = ("premium_rate", "shared_cost", "personal_number")
OTHERS = ("fixed_line", "mobile", "toll_free", "voip", "uan", "pager", "voicemail")
TOLL_FRAUD = (
    "220", "224", "232", "239", "245", "246", "247", "252", "269", "290", "500", "53", "670", "672", "674", "675",
    "677", "678", "681", "682", "683", "686", "688", "690", "850", "870", "878", "881", "882", "883", "888", "979",
    "991",
)  # fmt: skip
TARGET = Path(__file__).parents[1] / "src/trunkline/voice/number_risks.txt"

Node = tuple[Any, ...]


def steps(items: list[Any], rest: Node) -> Node:
    """The items as a chain that ends in `rest`."""
    node = rest
    for item in reversed(items):
        node = ("item", item, node)
    return node


def after(node: Node, digit: str, found: set[Node], seen: set[Node]) -> None:
    """Where a node leads by one digit."""
    if node in seen or node == ("end",):
        return
    seen.add(node)
    _, (op, value), rest = node
    if op is kind.LITERAL:
        if chr(value) == digit:
            found.add(rest)
    elif op is kind.IN:
        if any(_in(each, digit) for each in value):
            found.add(rest)
    elif op is kind.SUBPATTERN:
        after(steps(_frozen(value[3]), rest), digit, found, seen)
    elif op is kind.BRANCH:
        for branch in value[1]:
            after(steps(_frozen(branch), rest), digit, found, seen)
    elif op is kind.MAX_REPEAT:
        least, most, inner = value
        if least == 0:
            after(rest, digit, found, seen)
        if most:
            again = (kind.MAX_REPEAT, (max(least - 1, 0), most - 1, inner))
            after(steps(_frozen(inner), ("item", again, rest)), digit, found, seen)
    else:
        raise ValueError(op)


def _frozen(items: Any) -> list[Any]:
    return [(op, _value(value)) for op, value in items]


def _value(value: Any) -> Any:
    if isinstance(value, (list, parser.SubPattern)):
        return tuple(_value(one) for one in value)
    if isinstance(value, tuple):
        return tuple(_value(one) for one in value)
    return value


def _in(each: Any, digit: str) -> bool:
    op, value = each
    if op is kind.RANGE:
        return bool(value[0] <= ord(digit) <= value[1])
    if op is kind.CATEGORY:
        return digit.isdecimal()
    return bool(op is kind.LITERAL and chr(value) == digit)


def start(metadata: Any, names: tuple[str, ...]) -> frozenset[Node]:
    nodes = set()
    for name in names:
        description = getattr(metadata, name)
        if description is not None and description.national_number_pattern:
            items = _frozen(parser.parse(description.national_number_pattern))
            nodes.add(steps(items, ("end",)))
    return frozenset(nodes)


def walk(risky: frozenset[Node], others: frozenset[Node], prefix: str, found: list[str]) -> None:
    if not risky:
        return
    if prefix and not others:
        found.append(prefix)
        return
    if len(prefix) == MAX_DIGITS:
        return
    for digit in "0123456789":
        walk(_next(risky, digit), _next(others, digit), prefix + digit, found)


def _next(nodes: frozenset[Node], digit: str) -> frozenset[Node]:
    found: set[Node] = set()
    seen: set[Node] = set()
    for node in nodes:
        after(node, digit, found, seen)
    return frozenset(found)


def merged(prefixes: list[str]) -> list[str]:
    """Ten siblings are their parent."""
    left = set(prefixes)
    for length in range(MAX_DIGITS, 1, -1):
        for parent in {one[:-1] for one in left if len(one) == length}:
            if all(parent + digit in left for digit in "0123456789"):
                left -= {parent + digit for digit in "0123456789"}
                left.add(parent)
    return sorted(left)


def main() -> None:
    special: dict[str, set[str]] = {}
    for code, regions in sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()):
        metas = [(r, PhoneMetadata.metadata_for_region_or_calling_code(code, r)) for r in regions]
        risky = frozenset().union(*(start(m, RISKY[: 2 if code == 1 else 3]) for _, m in metas))
        others = frozenset().union(*(start(m, OTHERS) for _, m in metas))
        found: list[str] = []
        walk(risky, others, "", found)
        special[str(code)] = set(merged(found))
    lines = [(f"{code}{p}", "special") for code, ps in special.items() for p in ps if code not in TOLL_FRAUD]
    lines += [(p, "tollfraud") for p in TOLL_FRAUD]
    head = [line for line in TARGET.read_text("ascii").splitlines() if line.startswith("#")]
    by_length = [line for line in TARGET.read_text("ascii").splitlines() if line[0] == "+" and line.count(" ") == 2]
    TARGET.write_text(
        "\n".join([*head, *sorted([*(f"+{one} {risk}" for one, risk in lines), *by_length])]) + "\n", "ascii"
    )


if __name__ == "__main__":
    main()
