"""The feature matrix, made from the tables of the code: `python -m trunkline.features FILE`.

What is served stands in `RESOURCES`, what Twilio serves in `api/twilio_paths.txt`; the difference answers 501.
"""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import typer

from trunkline.api.resources import RESOURCES
from trunkline.cli import app
from trunkline.messaging.connectors.table import CONNECTORS
from trunkline.settings import CONNECTORS as KINDS
from trunkline.twiml.document import DocumentKind
from trunkline.twiml.schema import Attribute, Noun, VerbSpec
from trunkline.twiml.verbs import VERBS, VOICE_NAMES
from trunkline.voice.verbs import VERBS as VOICE_VERBS
from trunkline.voice.verbs import later

WEBHOOKS: Final[Mapping[str, str]] = {
    "status": "Status callbacks: to the message's, the call's, the recording's, the application's or the service's"
    " StatusCallback URL.",
    "inbound": "Received messages: to the service's, the application's or the number's SmsUrl, then its fallback URL;"
    " the answer is TwiML.",
    "smpp-receipt": "Delivery receipts to the account's own SMPP clients.",
    "smpp-inbound": "Received messages to the account's own SMPP clients, where no URL asks for them.",
    "usage-trigger": "Usage triggers: to the trigger's CallbackUrl.",
}
"""Kinds of owed callbacks -> what they are; a test compares them with the handlers of a node."""

EXTENSIONS: Final = frozenset({"/2010-04-01/Accounts/{}/Calls/{}/Timeline"})
"""Paths of ours under Twilio's names that Twilio does not have."""

HEAD = """# Features

Made by `make docs` from the code; `tests/test_features.py` checks that it is current. An operation that Twilio has and
this server lacks answers 501 with Twilio's error body, never 404. Which properties are always null in an answer:
[null fields](null-fields.md). `Calls/Timeline` is ours: [a call's timeline](../howto/call-timeline.md). Without
`sip.enabled` everything about calls answers 501.
"""

_NAME = re.compile(r"\{\w*\}")


class Operation(NamedTuple):
    """A method at a path; the path with `{}` for its parameters."""

    product: str
    method: str
    path: str

    @property
    def resource(self) -> str:
        """The path's words below version and account: `Messages/Media`."""
        words = [word for word in self.path.split("/")[2:] if word != "{}"]
        return "/".join(words[1:] if words[0] == "Accounts" and len(words) > 1 else words)


def at_twilio() -> Iterator[Operation]:
    """Every operation of Twilio's OpenAPI documents."""
    for line in files("trunkline.api").joinpath("twilio_paths.txt").read_text("ascii").splitlines():
        if not line.startswith("#"):
            product, methods, path = line.split(" ")
            for method in methods.split(","):
                yield Operation(product, method, path)


def served() -> dict[Operation, tuple[str, str]]:
    """Every operation of ours -> its file (module name) and its path with names."""
    return {
        Operation(route.product, route.method, _NAME.sub("{}", route.template)): (name, route.template)
        for name, routes in RESOURCES.items()
        for route in routes
        if not _refuses(route.handler)
    }


def _refuses(handler: Any) -> bool:
    """Whether all a handler does is answer 501 (its path would else be taken for another)."""
    (function,) = ast.parse(textwrap.dedent(inspect.getsource(handler))).body
    if not isinstance(function, ast.AsyncFunctionDef) or len(function.body) > 2:
        return False
    last = function.body[-1]
    return isinstance(last, ast.Raise) and "ApiError(501" in ast.unparse(last)


def page() -> str:
    """The whole page in Markdown."""
    parts = [HEAD, *_rest_api(), *_twiml(), *_connectors(), *_webhooks(), *_commands()]
    return "\n".join(parts) + "\n"


# -- REST ------------------------------------------------------------------------------------------------------------


def _rest_api() -> Iterator[str]:
    ours, twilios = served(), set(at_twilio())
    products = sorted({operation.product for operation in ours})
    yield "## REST API\n"
    yield "| product | operations served | of Twilio's |"
    yield "|---|---|---|"
    for product in sorted({operation.product for operation in twilios}):
        count = sum(operation.product == product for operation in ours)
        yield f"| {product} | {count or '-'} | {sum(operation.product == product for operation in twilios)} |"
    for product in products:
        yield f"\n### {product}\n"
        yield "| resource | served | answers 501 | file |"
        yield "|---|---|---|---|"
        of_product = [operation for operation in twilios | set(ours) if operation.product == product]
        for resource in sorted({operation.resource for operation in of_product}):
            yield _resource_row(resource, [one for one in of_product if one.resource == resource], ours)


def _resource_row(resource: str, operations: Iterable[Operation], ours: Mapping[Operation, tuple[str, str]]) -> str:
    """One resource: its paths with their methods, how many operations it lacks, and its file."""
    paths: dict[str, list[str]] = {}
    modules: set[str] = set()
    lacking = 0
    for operation in sorted(operations, key=lambda one: (one.path, _ORDER.index(one.method))):
        if operation in ours:
            module, template = ours[operation]
            modules.add(f"`api/{module}.py`")
            paths.setdefault(template, []).append(operation.method)
        else:
            lacking += 1
    shown = "<br>".join(f"{' '.join(methods)} `{path}`" for path, methods in paths.items())
    return f"| {resource} | {shown or '-'} | {lacking or '-'} | {', '.join(sorted(modules)) or '-'} |"


_ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")


# -- the rest --------------------------------------------------------------------------------------------------------


def _twiml() -> Iterator[str]:
    yield "\n## TwiML for calls\n"
    yield from _verbs({name: verb.spec for name, verb in VOICE_VERBS.items() if verb.run is not later.run})
    lacking = ", ".join(sorted(name for name, verb in VOICE_VERBS.items() if verb.run is later.run))
    yield f"\nVerbs that are not there yet raise alert {later.NOT_SUPPORTED}, and the call goes on: {lacking}."
    yield "\n## TwiML for messages\n"
    yield from _verbs(VERBS[DocumentKind.MESSAGING])
    foreign = ", ".join(sorted(VOICE_NAMES - set(VERBS[DocumentKind.MESSAGING])))
    yield f"\nVerbs for calls in the document of a message raise warning 14110 and are passed over: {foreign}."


def _verbs(table: Mapping[str, VerbSpec]) -> Iterator[str]:
    """A table of verbs; a noun's attributes stand behind its name."""
    yield "| verb | attributes | nouns |"
    yield "|---|---|---|"
    for name, spec in table.items():
        attributes = ", ".join(map(_attribute, spec.attributes))
        nouns = ", ".join(map(_noun, spec.children.values()))
        yield f"| `<{name}>` | {attributes or '-'} | {nouns or '-'} |"


def _noun(noun: Noun) -> str:
    attributes = ", ".join(map(_attribute, noun.attributes))
    return f"`<{noun.name}>`" + (f" ({attributes})" if attributes else "")


def _attribute(attribute: Attribute) -> str:
    value = attribute.default
    shown = "" if value is None else " ".join(value) if isinstance(value, tuple) else str(value)
    default = f" (default {shown.lower() if isinstance(value, bool) else shown})" if shown else ""
    return f"`{attribute.name}`{default}"


def _connectors() -> Iterator[str]:
    yield "\n## Connectors\n"
    yield "| kind | carrier | file |"
    yield "|---|---|---|"
    for kind, place in CONNECTORS.items():
        file = place.partition(":")[0].removeprefix("trunkline.").replace(".", "/")
        yield f"| [{kind}](settings.md#connectors-with-kind--{kind}) | {_first(KINDS[kind])} | `{file}.py` |"


def _webhooks() -> Iterator[str]:
    yield "\n## Callbacks\n"
    yield "| kind | what |"
    yield "|---|---|"
    for kind, text in WEBHOOKS.items():
        yield f"| {kind} | {text} |"


class Command(NamedTuple):
    """One command of the command line."""

    words: str
    """As it is typed, after `trunkline`."""
    text: str
    """The first sentence of its help."""


def commands() -> Iterator[Command]:
    """Every command, those of groups with the group's name."""
    yield from _of(app, "")
    for group in app.registered_groups:
        inner = group.typer_instance
        if inner is None:
            continue
        alone = inner.registered_callback
        if inner.info.invoke_without_command is True and alone is not None and alone.callback is not None:
            yield Command(str(group.name), _first(alone.callback))
        yield from _of(inner, f"{group.name} ")


def _of(group: typer.Typer, prefix: str) -> Iterator[Command]:
    for info in group.registered_commands:
        if info.callback is not None:
            name = info.name or info.callback.__name__.rstrip("_").replace("_", "-")
            yield Command(prefix + name, _first(info.callback))


def _commands() -> Iterator[str]:
    yield "\n## Commands\n"
    yield "| command | what it does |"
    yield "|---|---|"
    for command in commands():
        yield f"| `trunkline {command.words}` | {command.text} |"


def _first(thing: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
