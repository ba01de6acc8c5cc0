"""A learning run: what is in its folder, and the settings that its processes get, which hold no secret."""

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from trunkline.learning.sampling import Sampling
from trunkline.settings import CONNECTORS, Secret, Settings
from trunkline.settings.kinds import Secrets
from trunkline.settings.learning import Learning

FOLDER: Final = "learning"
"""Of all runs, below the data folder."""
SOCKET: Final = "feed"
RUN_FILE: Final = "run.json"
TALLY_FILE: Final = "tally.json"
LOG_FILE: Final = "learner.log"
_REFERRED: Final = re.compile(r"""["']file:([^"']+)["']""")
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}\Z")
HANDED: Final = ("messaging", "webhooks", "voice", "connectors", "routes", "rates", "trunks")
"""The parts of the settings that a learner gets; all else is as by default."""
CANDIDATE, CONTROL = "candidate", "control"
ROUTER, TWIML = "router", "twiml"
PATCHES: Final = (ROUTER, TWIML, *CONNECTORS)
"""What `NAME=module:attribute` may replace: the router's class, the parser of TwiML, a kind of connector."""


class Side(msgspec.Struct):
    """One process that follows the work."""

    name: str
    settings: dict[str, Any]
    python: str
    """Its interpreter."""
    path: list[str] = []
    """Folders that modules are looked for in first."""
    patches: dict[str, str] = {}
    """What is replaced (`router`, `twiml`, `smpp`) -> `module:attribute`."""


class Run(msgspec.Struct):
    """`run.json`."""

    name: str
    candidate: str
    """As it was given."""
    commit: str
    """Of a candidate version, where git knows it."""
    started_ms: int
    sampling: Sampling
    limits: Learning
    sides: list[Side]
    hidden: list[str] = []
    """Files with secrets in them, which nothing in there can read."""


def settings_for(settings: Settings) -> dict[str, Any]:
    """What a process is given of the settings: only what decides about messages and calls, secrets left out, paces and
    waits taken out, and connectors that have no sink replaced."""
    found: dict[str, Any] = {name: _bare(getattr(settings, name)) for name in HANDED}
    found["messaging"] |= {
        "long_code_mps": 0, "short_code_mps": 0, "alpha_mps": 0, "toll_free_mps": 0, "retry_first_s": 0.001,
        "retry_longest_s": 0.001, "queue_s": 1_000_000,
    }  # fmt: skip
    found["connectors"] = [_connector(one) for one in found["connectors"]]
    return found


def hidden(settings: Settings) -> list[str]:
    """The files that hold the node's secrets: its settings, what those refer to by `file:`, and its keys for TLS."""
    found = [settings.server.tls_key, settings.smpp_server.tls_key]
    if settings.source:
        source = Path(settings.source).resolve()
        named = _REFERRED.findall(source.read_text(encoding="utf-8", errors="replace"))
        found += [str(source), *(str(source.parent / name) for name in named)]
    return sorted({str(Path(one).resolve()) for one in found if one})


def _connector(own: dict[str, Any]) -> dict[str, Any]:
    """SMPP goes to the sink, whose port is filled in later; what else there is takes messages and does nothing."""
    if own["kind"] == "smpp":
        return own | {
            "host": "127.0.0.1", "tls": False, "tls_ca": "", "binds": 1, "bind": "trx", "mps": 0,
            "reconnect_first_s": 0.05, "reconnect_longest_s": 0.5, "system_id": "learner",
        }  # fmt: skip
    return {"kind": "loopback", "name": own["name"], "reply": False, "receipts": own["receipts"], "delay_s": 0.0}


def _bare(value: Any) -> Any:
    if isinstance(value, Secret):
        return ""
    if isinstance(value, Secrets):
        return []
    if isinstance(value, msgspec.Struct):
        own = {name: _bare(getattr(value, name)) for name in value.__struct_fields__}
        tag = value.__struct_config__.tag
        return {"kind": tag, **own} if isinstance(tag, str) else own
    if isinstance(value, Mapping):
        return {str(name): _bare(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_bare(one) for one in value]
    return str(value) if isinstance(value, Decimal) else value


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings in a process, as `settings_for` has written them."""

    def decode(kind: type, value: Any) -> Any:
        if kind is Secret:
            return Secret(value)
        if kind is Secrets:
            return Secrets(Secret(one) for one in value)
        raise TypeError(f"cannot read a {kind.__name__}")

    return msgspec.convert(dict(given), Settings, dec_hook=decode)


def read(folder: Path) -> Run:
    """The run in a folder. Raises OSError, msgspec.MsgspecError."""
    return msgspec.json.decode((folder / RUN_FILE).read_bytes(), type=Run)


def write(folder: Path, name: str, value: Any) -> None:
    """Replace a file whole."""
    new = folder / f"{name}.new"
    new.write_bytes(msgspec.json.encode(value))
    new.replace(folder / name)
