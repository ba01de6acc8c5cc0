"""Reading the settings: profile, then file, then environment, each over the one before.

Promise: `load` returns settings that are whole and consistent, or raises `SettingsError` with one line that says where
the mistake is and what to do about it. Relative paths are taken from the settings file's folder.
"""

import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec

from trunkline.settings.allowed import allowed
from trunkline.settings.cluster import Cluster, Node, cluster_absolute, cluster_problems, does
from trunkline.settings.connectors import CONNECTORS, Connector, Http, Loopback
from trunkline.settings.kinds import ProfileName, Secret, Secrets, Section
from trunkline.settings.learning import Learning
from trunkline.settings.memory import Memory, memory_absolute, memory_problems
from trunkline.settings.objects import Objects, objects_problems
from trunkline.settings.profiles import PROFILES, Profile
from trunkline.settings.region import OtherRegion, Region, region_problems
from trunkline.settings.release import Release
from trunkline.settings.sections import (
    Archive,
    Data,
    Limits,
    Log,
    Messaging,
    Rate,
    Route,
    Security,
    Server,
    SmppServer,
    Storage,
    Webhooks,
)
from trunkline.settings.telemetry import Telemetry, telemetry_problems
from trunkline.settings.trunk import Trunk
from trunkline.settings.voice import MediaEngine, Sip, Speech, Voice
from trunkline.settings.voice_checks import voice_problems

ENV_PREFIX = "TRUNKLINE_"
CONFIG_ENV = "TRUNKLINE_CONFIG"
PROFILE_ENV = "TRUNKLINE_PROFILE"
MASTER_KEY_ENV = "TRUNKLINE_MASTER_KEY"
FOREIGN_PREFIXES = (
    "TRUNKLINE_TEST_",
    "TRUNKLINE_DEMO_",
    "TRUNKLINE_BENCH_",
    "TRUNKLINE_CACHE",
    "TRUNKLINE_MEDIA_HELPER",
)
"""Variables that are not settings: those of tests, and what the media process reads by itself."""
DEFAULT_FILES = ("trunkline.toml", "/etc/trunkline/trunkline.toml")
"""Where the file is looked for when none is named."""
MAX_FILE_BYTES = 1024 * 1024
MAX_SECRET_BYTES = 64 * 1024
MAX_SHOWN_CHARS = 40
"""How much of a wrong value an error shows."""


class SettingsError(Exception):
    """The settings cannot be used; the text is one line for the operator."""


class Settings(Section, frozen=True, kw_only=True):
    """Everything the operator decides."""

    profile: ProfileName = "development"
    """`development`, `integration`, `staging` or `production`; see the profiles below."""
    server: Server = Server()
    data: Data = Data()
    storage: Storage = Storage()
    memory: Memory = Memory()
    node: Node = Node()
    cluster: Cluster = Cluster()
    objects: Objects = Objects()
    region: Region = Region()
    release: Release = Release()
    security: Security = Security()
    webhooks: Webhooks = Webhooks()
    messaging: Messaging = Messaging()
    smpp_server: SmppServer = SmppServer()
    sip: Sip = Sip()
    media: MediaEngine = MediaEngine()
    voice: Voice = Voice()
    speech: Speech = Speech()
    archive: Archive = Archive()
    limits: Limits = Limits()
    log: Log = Log()
    telemetry: Telemetry = Telemetry()
    learning: Learning = Learning()
    connectors: tuple[Connector, ...] = ()
    routes: tuple[Route, ...] = ()
    rates: tuple[Rate, ...] = ()
    trunks: tuple[Trunk, ...] = ()
    regions: tuple[OtherRegion, ...] = ()
    source: str = ""
    """The file these were read from; empty if none. Not a setting."""

    @property
    def rules(self) -> Profile:
        """What the profile allows."""
        return PROFILES[self.profile]

    @property
    def data_path(self) -> Path:
        """The data folder."""
        return Path(self.data.path)

    @property
    def base_url(self) -> str:
        """`server.public_url`, or one made of host and port; without a trailing slash."""
        if self.server.public_url:
            return self.server.public_url.rstrip("/")
        scheme = "https" if self.server.tls_cert else "http"
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.server.host, self.server.host)  # noqa: S104
        return f"{scheme}://{host}:{self.server.port}"

    def connector(self, name: str) -> Connector | None:
        """A connector by its name."""
        return next((one for one in self.connectors if one.name == name), None)


HIDDEN = ("source",)
"""Fields of Settings that are not read from the file."""


@cache
def sections() -> dict[str, type[Section]]:
    """The plain sections (tables) by name."""
    return {
        field.name: field.type
        for field in msgspec.structs.fields(Settings)
        if isinstance(field.type, type) and issubclass(field.type, Section)
    }


@cache
def environment_names() -> dict[str, tuple[str, str]]:
    """Every environment variable that overrides a setting -> (section, key)."""
    names = {
        f"{ENV_PREFIX}{section}_{field.name}".upper(): (section, field.name)
        for section, kind in sections().items()
        for field in msgspec.structs.fields(kind)
    }
    return names | {MASTER_KEY_ENV: ("security", "master_key")}


def load(
    path: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    candidate: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings. `path` (or TRUNKLINE_CONFIG) names the file, else DEFAULT_FILES are tried, else there is none.

    `overrides` (section -> key -> value) come last: the command line's. A `candidate` is a tree as a file has it, over
    the file's (see `overlaid`). Raises SettingsError.
    """
    environment = os.environ if environment is None else environment
    file = _find(path, environment)
    tree = _read(file) if file else {}
    label = str(file) if file else "settings"
    base = file.resolve().parent if file else Path.cwd()
    tree = overlaid(tree, candidate or {})
    _refuse_unknown(tree, label)
    profile = environment.get(PROFILE_ENV) or tree.get("profile", "development")
    if not isinstance(profile, str) or profile not in PROFILES:
        raise SettingsError(f"{label}: profile: {_show(profile)} is none of {', '.join(PROFILES)}")
    hook = partial(_decode, environment, base)
    merged: dict[str, Any] = {**tree, "profile": profile, "source": str(file or "")}
    layers = (PROFILES[profile].defaults, tree, _from_environment(environment, tree, hook), overrides or {})
    for section in sections():
        merged[section] = {key: value for layer in layers for key, value in layer.get(section, {}).items()}
    try:
        settings = msgspec.convert(merged, Settings, dec_hook=hook)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(error, merged, label)) from None
    return _complete(settings, label, base)


def overlaid(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others over them: sections key by key, connectors and trunks by their names, all else whole."""
    whole = dict(tree)
    for name, value in over.items():
        own = tree.get(name)
        if isinstance(value, dict) and isinstance(own, dict):
            whole[name] = {**own, **value}
        elif name in ("connectors", "trunks") and isinstance(value, list) and isinstance(own, list):
            named = {one.get("name"): one for one in own}
            named |= {one.get("name"): {**named.get(one.get("name"), {}), **one} for one in value}
            whole[name] = list(named.values())
        else:
            whole[name] = value
    return whole


def _find(path: str | os.PathLike[str] | None, environment: Mapping[str, str]) -> Path | None:
    named = path or environment.get(CONFIG_ENV)
    if named:
        if not Path(named).is_file():
            raise SettingsError(f"{named}: no such file; name an existing one with --config or {CONFIG_ENV}")
        return Path(named)
    return next((Path(name) for name in DEFAULT_FILES if Path(name).is_file()), None)


def _read(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise SettingsError(f"{file}: larger than {MAX_FILE_BYTES} bytes; is it the right file?")
        text = file.read_text(encoding="utf-8")
        if not text:  # what a power loss leaves of a file that was just written
            raise SettingsError(f"{file}: empty; restore it, or write a comment into it if all defaults are meant")
        return tomllib.loads(text)
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}; check its owner and mode") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from None


def _refuse_unknown(tree: Mapping[str, Any], label: str) -> None:
    """Names that no struct has are mistakes: say which, and what was probably meant."""
    known = [name for name in Settings.__struct_fields__ if name not in HIDDEN]
    _check_names(tree, known, label, "")
    for name, kind in sections().items():
        table = tree.get(name, {})
        if not isinstance(table, dict):
            raise SettingsError(f"{label}: {name}: expected a table; write it as [{name}]")
        _check_names(table, kind.__struct_fields__, label, f"{name}.")
    for name, kind in (("routes", Route), ("rates", Rate), ("trunks", Trunk), ("regions", OtherRegion)):
        for index, table in enumerate(_tables(tree, name, label)):
            _check_names(table, kind.__struct_fields__, label, f"{name}[{index}].")
    for index, table in enumerate(_tables(tree, "connectors", label)):
        where = f"connectors[{index}]."
        chosen = table.get("kind")
        if chosen not in CONNECTORS:
            raise SettingsError(f"{label}: {where}kind: {_show(chosen)} is none of {', '.join(CONNECTORS)}")
        _check_names(table, ["kind", *CONNECTORS[chosen].__struct_fields__], label, where)


def _tables(tree: Mapping[str, Any], name: str, label: str) -> list[dict[str, Any]]:
    tables = tree.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{label}: {name}: expected tables; write each as [[{name}]]")
    return tables


def _check_names(table: Mapping[str, Any], known: typing.Iterable[str], label: str, where: str) -> None:
    for key in table:
        if key not in known:
            raise SettingsError(f"{label}: {where}{key}: no such setting{_meant(key, known)}")


def _meant(name: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else "; remove it"


def _from_environment(environment: Mapping[str, str], tree: Mapping[str, Any], hook: Any) -> dict[str, dict[str, Any]]:
    """The sections' values that the environment overrides."""
    names = environment_names()
    referred = _referred(tree)
    found: dict[str, dict[str, Any]] = {}
    for name, text in environment.items():
        if not name.startswith(ENV_PREFIX) or name in (CONFIG_ENV, PROFILE_ENV) or name in referred:
            continue
        if name.startswith(FOREIGN_PREFIXES):
            continue
        if name not in names:
            raise SettingsError(f"environment: {name}: no such setting{_meant(name, names)}")
        section, key = names[name]
        kind = typing.get_type_hints(sections()[section], include_extras=True)[key]
        found.setdefault(section, {})[key] = _parse(name, text, kind, hook)
    return found


def _parse(name: str, text: str, kind: Any, hook: Any) -> Any:
    if kind is Secret:
        return text
    if kind is Secrets:
        return [line.strip() for line in text.splitlines() if line.strip()]
    value: Any = text
    if typing.get_origin(kind) is tuple:
        value = [part.strip() for part in text.split(",") if part.strip()]
    elif kind is bool:
        value = text.lower()
    try:
        return msgspec.to_builtins(msgspec.convert(value, kind, strict=False, dec_hook=hook))
    except msgspec.ValidationError as error:
        raise SettingsError(f"environment: {name}: {_plain(str(error), allowed(kind, ''))} {_show(text)}") from None


def _referred(tree: Any) -> set[str]:
    """Environment variables that `env:NAME` values name."""
    if isinstance(tree, str):
        return {tree[4:]} if tree.startswith("env:") else set()
    if isinstance(tree, dict):
        return set().union(*(_referred(value) for value in tree.values()))
    if isinstance(tree, list):
        return set().union(*(_referred(value) for value in tree))
    return set()


def _decode(environment: Mapping[str, str], base: Path, kind: type, value: Any) -> Any:
    """msgspec's hook for types of our own: a Secret is given plainly, by `env:NAME` or by `file:PATH`."""
    if kind is Secrets:
        return Secrets(
            _decode(environment, base, Secret, one) for one in (value if isinstance(value, list | tuple) else [value])
        )
    if kind is not Secret:
        raise TypeError(f"cannot read a {kind.__name__}")
    if not isinstance(value, str):
        raise ValueError("the secret must be a string in quotes")
    if value.startswith("env:"):
        name = value[4:]
        if not environment.get(name):
            raise ValueError(f"the secret's environment variable {name} is not set; set it")
        return Secret(environment[name])
    if value.startswith("file:"):
        file = base / value[5:]
        try:
            if file.stat().st_size > MAX_SECRET_BYTES:
                raise ValueError(f"the secret's file {file} is larger than {MAX_SECRET_BYTES} bytes")
            return Secret(file.read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise ValueError(f"the secret's file {file} cannot be read ({reason})") from None
    return Secret(value)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."


def _plain(text: str, words: tuple[str, ...] = ()) -> str:
    """msgspec's reason in TOML's words, ending where the wrong value is to be shown. `words`: what may stand there."""
    if text.startswith("Invalid enum value"):
        return f"must be {' or '.join(words) or 'as docs/reference/settings.md has it'}, not"
    text = re.sub(r", got `\w+`", "", text).replace("`", "").replace("object", "table").replace("array", "list")
    return f"{text[0].lower()}{text[1:]}, not"


HIDDEN_REASON = "the secret"
"""How every reason of `_decode` begins; such a value is never shown."""
_PATH = re.compile(r"(.*) - at `\$\.?(.*)`\Z", re.DOTALL)


def _explain(error: msgspec.ValidationError, tree: Mapping[str, Any], label: str) -> str:
    """One line out of msgspec's: the place first, then what is wrong, then what stands there (secrets excepted)."""
    match = _PATH.match(str(error))
    if match is None:
        return f"{label}: {error}"
    what, where = match.groups()
    missing = re.match(r"Object missing required field `(\w+)`", what)
    if missing:
        return f"{label}: {where}: {missing[1]} is missing; add it"
    if what.startswith(HIDDEN_REASON):
        return f"{label}: {where}: {what}"
    value: Any = tree
    try:
        for step in re.findall(r"\w+", where):
            value = value[int(step) if step.isdigit() else step]
    except (KeyError, IndexError, TypeError):
        return f"{label}: {where}: {what.replace('`', '')}"
    return f"{label}: {where}: {_plain(what, allowed(Settings, where))} {_show(value)}"


def _complete(settings: Settings, label: str, base: Path) -> Settings:
    """Fill in what follows from the rest, resolve paths, and refuse what does not fit together."""
    rules = settings.rules
    connectors = settings.connectors
    if not connectors:
        if not rules.loopback:
            raise SettingsError(f"{label}: connectors: {settings.profile} needs a carrier; add one as [[connectors]]")
        connectors = (Loopback(name="loopback"),)
    trunks = settings.trunks
    if not trunks and settings.sip.enabled and rules.loopback and not rules.strict:
        trunks = (Trunk(name="simulated", simulated=True, codecs=("PCMU", "PCMA", "G722", "opus")),)
    routes = settings.routes or tuple(Route(name=one.name, connector=one.name) for one in connectors)
    whole = msgspec.structs.replace(
        settings,
        connectors=connectors,
        routes=routes,
        trunks=trunks,
        data=msgspec.structs.replace(settings.data, path=str((base / settings.data.path).absolute())),
        server=_absolute(settings.server, base),
        smpp_server=_absolute(settings.smpp_server, base),
        memory=memory_absolute(settings.memory, base),
        cluster=cluster_absolute(settings.cluster, base),
        sip=msgspec.structs.replace(settings.sip, enabled=settings.sip.enabled and does(settings, "voice")),
    )
    for problem in problems(whole):
        raise SettingsError(f"{label}: {problem}")
    return whole


S = typing.TypeVar("S", Server, SmppServer)


def _absolute(section: S, base: Path) -> S:
    changes = {
        name: str((base / getattr(section, name)).absolute())
        for name in ("tls_cert", "tls_key")
        if getattr(section, name)
    }
    return msgspec.structs.replace(section, **changes)


def problems(settings: Settings) -> typing.Iterator[str]:
    """What does not fit together, one line each."""
    for name in ("server", "smpp_server"):
        section = getattr(settings, name)
        if bool(section.tls_cert) != bool(section.tls_key):
            yield f"{name}.tls_key: tls_cert and tls_key go together; set both or neither"
        for key in ("tls_cert", "tls_key"):
            file = getattr(section, key)
            if file and not os.access(file, os.R_OK):
                yield f"{name}.{key}: {file} cannot be read; check the path and its mode"
                break
        else:
            yield from _pair_problems(name, section.tls_cert, section.tls_key)
    url = settings.server.public_url
    if url and not re.match(r"https?://[^/\s]+/?\Z", url):
        yield f"server.public_url: {_show(url)} is not like https://sms.example.com; give scheme and host only"
    yield from _storage_problems(settings)
    yield from memory_problems(settings.memory)
    yield from cluster_problems(settings)
    yield from objects_problems(settings.objects, settings.storage.engine)
    yield from telemetry_problems(settings.telemetry)
    yield from region_problems(settings)
    yield from _connector_problems(settings)
    yield from _amount_problems(settings)
    yield from voice_problems(settings)
    if settings.rules.strict:
        yield from _strict_problems(settings)


def _storage_problems(settings: Settings) -> typing.Iterator[str]:
    own = settings.storage
    given = [name for name in ("queue", "database") if any(getattr(own, name))]
    if own.engine == "sqlite":
        if given:
            yield f'storage.{given[0]}: is of no use with engine = "sqlite"; remove it or say engine = "postgres"'
        if own.survives not in ("process", "power"):
            yield f'storage.survives: sqlite cannot outlive its {own.survives}; say engine = "postgres" or "power"'
        if own.partitions > 1:
            yield f'storage.partitions: sqlite has 1, not {own.partitions}; say engine = "postgres" or 1'
        return
    for name in ("queue", "database"):
        if name not in given:
            yield f'storage.{name}: engine = "postgres" needs a connection string; add it, best as env:NAME'
    if len(own.queue) > own.partitions:
        yield (
            f"storage.partitions: {own.partitions} cannot be spread over {len(own.queue)} databases of storage.queue; "
            "say as many at least, best a multiple"
        )
    elif "queue" in given and (not all(own.queue) or len(set(own.queue)) < len(own.queue)):
        yield "storage.queue: each database must be named, and once only"
    for entry in own.zones:
        if not re.fullmatch(r"[^=]+=[^=/]+(/[^=/]+)?", entry):
            yield f"storage.zones: {_show(entry)} is not NAME=ZONE or NAME=REGION/ZONE"


def _pair_problems(name: str, certificate: str, key: str) -> typing.Iterator[str]:
    """What the listener would stumble over; encrypted keys cannot be used, nobody is there to be asked."""
    if not certificate or not key:
        return
    import ssl  # costs start-up time that most commands need not pay

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = f" ({error.reason})" if isinstance(error, ssl.SSLError) and error.reason else ""
        yield f"{name}.tls_key: {certificate} and {key} are no pair of certificate and unencrypted key in PEM{reason}"


def _connector_problems(settings: Settings) -> typing.Iterator[str]:
    names = [one.name for one in settings.connectors]
    for name in names:
        if names.count(name) > 1:
            yield f"connectors: two are named {name}; names must differ"
    routes = [route.name for route in settings.routes]
    for route in settings.routes:
        if routes.count(route.name) > 1:
            yield f"routes: two are named {route.name}; names must differ"
        if route.connector not in names:
            yield f"routes ({route.name}).connector: no connector {route.connector}{_meant(route.connector, names)}"
    if not settings.rules.loopback:
        for one in settings.connectors:
            if isinstance(one, Loopback):
                yield f"connectors ({one.name}): loopback sends nothing and {settings.profile} refuses it; remove it"


def _amount_problems(settings: Settings) -> typing.Iterator[str]:
    amounts = [(f"routes ({one.name})", one.cost, one.price) for one in settings.routes]
    amounts += [(f"rates ({one.prefix})", one.price, one.inbound_price) for one in settings.rates]
    for where, *values in amounts:
        for value in values:
            if value is not None and (not value.is_finite() or value < 0):
                yield f"{where}: {value} is no amount; give zero or more"


def _strict_problems(settings: Settings) -> typing.Iterator[str]:
    if not settings.security.master_key:
        yield f"security.master_key: {settings.profile} needs one; set {MASTER_KEY_ENV} or file:PATH"
    if settings.security.webhook_private_networks:
        yield f"security.webhook_private_networks: {settings.profile} refuses true; list them in webhook_allow"
    for one in settings.connectors:
        if isinstance(one, Http) and not one.callback_token:
            yield f"connectors ({one.name}).callback_token: {settings.profile} needs one: else anybody sends receipts"


def is_optional(kind: Any) -> bool:
    """Whether a field's type admits None."""
    return typing.get_origin(kind) in (typing.Union, types.UnionType) and type(None) in typing.get_args(kind)
