"""The settings' reference page, made from the structs: `python -m trunkline.settings.reference FILE`."""

import ast
import inspect
import itertools
import re
import sys
import typing
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import msgspec

from trunkline.settings.connectors import CONNECTORS
from trunkline.settings.kinds import Secret, Secrets, Section
from trunkline.settings.load import is_optional, sections
from trunkline.settings.profiles import PROFILES
from trunkline.settings.region import OtherRegion
from trunkline.settings.sections import Rate, Route
from trunkline.settings.trunk import Gateway, Trunk

HEAD = """# Settings

Made by `make docs` from the code; `tests/test_settings.py` checks that it is current.

One TOML file (`--config FILE`, else `TRUNKLINE_CONFIG`, else `./trunkline.toml`, else `/etc/trunkline/trunkline.toml`),
all of it optional. Over it comes the environment: a key of a table is `TRUNKLINE_<TABLE>_<KEY>` in capitals, lists with
commas (`TRUNKLINE_SERVER_PORT=8443`). Under it lie the defaults of the profile. Units are in the names: `_s` seconds,
`_bytes` bytes, `_mps` message segments a second, `_chars` characters. Names that are not listed here are refused.
Relative paths are taken from the file's folder. A *secret* may be written `env:NAME` or `file:PATH`.

The top of the file may hold `profile = "development"` (or `TRUNKLINE_PROFILE`); `TRUNKLINE_MASTER_KEY` is short for
`security.master_key`. A setting variable that names nothing is refused too.
"""


def page() -> str:
    """The whole page in Markdown."""
    parts = [HEAD, _profiles()]
    parts += [_section(f"[{name}]", kind) for name, kind in sections().items()]
    parts += [_section(f'[[connectors]] with kind = "{name}"', kind) for name, kind in CONNECTORS.items()]
    parts += [_section("[[routes]]", Route), _section("[[rates]]", Rate), _section("[[trunks]]", Trunk)]
    parts += [_section("[[trunks.gateways]]", Gateway), _section("[[regions]]", OtherRegion)]
    return "\n".join(parts)


def _profiles() -> str:
    rows = [
        "## Profiles",
        "",
        "| profile | defaults that differ | loopback | makes its own master key | strict |",
        "|---|---|---|---|---|",
    ]
    for name, profile in PROFILES.items():
        differ = "; ".join(
            f"`{section}.{key} = {_toml(value)}`"
            for section, keys in profile.defaults.items()
            for key, value in keys.items()
        )
        flags = (profile.loopback, profile.own_master_key, profile.strict)
        rows.append(f"| {name} | {differ} | " + " | ".join("yes" if flag else "no" for flag in flags) + " |")
    rows += [
        "",
        "*strict* refuses settings that are dangerous: a master key beside the data, webhooks to any",
        "private address. Without a `[[connectors]]`, profiles that allow it get one loopback connector; without a",
        "`[[routes]]`, every connector gets a route for all destinations; with `sip.enabled` and without a",
        "`[[trunks]]`, profiles that are not strict get a simulated one.",
        "",
    ]
    return "\n".join(rows)


def _section(title: str, kind: type[Section]) -> str:
    rows = [
        f"## `{title}`" if "with" not in title else f"## {title}",
        "",
        _own_doc(kind),
        "",
        "| key | type | default | |",
        "|---|---|---|---|",
    ]
    hints = typing.get_type_hints(kind, include_extras=True)
    texts = field_texts(kind)
    for field in msgspec.structs.fields(kind):
        default = _default(field)
        rows.append(f"| `{field.name}` | {_type(hints[field.name])} | {default} | {texts[field.name]} |")
    rows.append("")
    return "\n".join(rows)


def _own_doc(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").split())


def field_texts(kind: type) -> dict[str, str]:
    """The text under each field of a struct, its bases' included. Raises KeyError for a field without one."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base is Section or not issubclass(base, Section):
            continue
        (tree,) = ast.parse(inspect.getsource(base)).body
        body = cast(ast.ClassDef, tree).body
        for this, following in itertools.pairwise(body):
            if isinstance(this, ast.AnnAssign) and isinstance(following, ast.Expr):
                text = ast.literal_eval(following.value)
                texts[cast(ast.Name, this.target).id] = " ".join(text.split()).replace("|", "\\|")
    return texts


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is not msgspec.NODEFAULT:
        return _code(field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return _code(cast(Any, field.default_factory)())
    return "*required*"


def _code(value: Any) -> str:
    return "none" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | Decimal):
        return f'"{value}"'
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)


PLAIN = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Secret: "secret",
    Secrets: "secret or list of them",
    Decimal: "decimal",
}


def _type(hint: Any) -> str:
    """A type in words, with its bounds."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _type(arguments[0]) + _bounds(arguments[1])
    if origin is typing.Literal:
        return " or ".join(f"`{_toml(value)}`" for value in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if hint == str | Gateway:
        return "text or table"
    if is_optional(hint):
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if isinstance(origin, type) and len(arguments) == 2:
        return f"table of {_type(arguments[1])}"
    return PLAIN[hint]


def _bounds(meta: msgspec.Meta) -> str:
    low = meta.ge if meta.ge is not None else meta.gt
    if low is not None or meta.le is not None:
        more = "more than " if meta.gt is not None else ""
        return f", {more}{low} to {meta.le}"
    if meta.max_length is not None:
        return f", at most {meta.max_length} characters"
    if meta.pattern is not None:
        return ", `" + meta.pattern.replace("|", "\\|") + "`"
    return ""


def main(arguments: list[str]) -> int:
    """Write the page to the file named."""
    Path(arguments[0]).write_text(re.sub(r"[ \t]+\n", "\n", page()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
