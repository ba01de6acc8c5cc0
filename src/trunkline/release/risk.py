"""Which class of risk a change is of, and what that class must show (`risk.toml`)."""

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from trunkline.release.change import Change, Git, Touched

FILE: Final = "risk.toml"
"""At the top of the repository."""
CHECKS: Final = ("tests", "performance", "learning", "soak")
"""What a machine can show."""
MAX_APPROVALS: Final = 10


class BadRisk(Exception):
    """`risk.toml` cannot be used; the text is one line."""


class Must(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a class must show."""

    checks: tuple[str, ...] = ()
    canary: bool = False
    approvals: Annotated[int, Meta(ge=0, le=MAX_APPROVALS)] = 0

    @property
    def is_one_click(self) -> bool:
        """Whether nothing has to be shown."""
        return not (self.checks or self.canary or self.approvals)


class Besides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an environment adds."""

    checks: tuple[str, ...] = ()


class Approver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may sign."""

    name: str
    email: str
    key: str
    """ssh-ed25519 AAAA..."""
    classes: tuple[str, ...] = ()
    """None: all."""


class Touches(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"name": "class"}):
    """What belongs to a class."""

    name: str
    paths: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


class Risk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `risk.toml`."""

    classes: tuple[str, ...]
    unmatched: str
    unmatched_key: str
    must: Mapping[str, Must]
    touches: tuple[Touches, ...]
    settings: tuple[str, ...] = ()
    environments: Mapping[str, Besides] = {}
    approver: tuple[Approver, ...] = ()

    def is_settings(self, path: str) -> bool:
        """Whether what counts in the file are its keys."""
        return any(glob(pattern).fullmatch(path) for pattern in self.settings)

    def rank(self, name: str) -> int:
        """The place of a class; greater is riskier. Raises BadRisk."""
        try:
            return self.classes.index(name)
        except ValueError:
            raise BadRisk(f"there is no class {name}: there are {', '.join(self.classes)}") from None

    def wants(self, name: str, environment: str) -> Must:
        """What a change of that class must show in that environment."""
        own = self.must[name]
        if own.is_one_click:
            return own
        besides = self.environments.get(environment, Besides()).checks
        return Must(tuple(dict.fromkeys((*own.checks, *besides))), own.canary, own.approvals)


class Reason(msgspec.Struct, frozen=True):
    """Why a change is of a class."""

    name: str
    path: str
    what: str
    """The rule, the key or the line that decided."""


def classify(risk: Risk, change: Change) -> list[Reason]:
    """One reason for each file, the riskiest first; no file: none."""
    reasons = [_reason(risk, touched) for touched in change.files]
    return sorted(reasons, key=lambda reason: (-risk.rank(reason.name), reason.path))


def class_of(risk: Risk, reasons: list[Reason]) -> str:
    """The class of the whole change."""
    return reasons[0].name if reasons else risk.classes[0]


def _reason(risk: Risk, touched: Touched) -> Reason:
    if risk.is_settings(touched.path):
        return _of_settings(risk, touched)
    found: list[Reason] = []
    for rule in risk.touches:
        matched = next((each for each in rule.paths if glob(each).fullmatch(touched.path)), None)
        if matched is None:
            continue
        if rule.lines:
            line = next((line for line in touched.lines if any(re.search(each, line) for each in rule.lines)), None)
            if line is not None:
                found.append(Reason(rule.name, touched.path, f"the line {line.strip()[:60]!r}"))
        else:
            found.append(Reason(rule.name, touched.path, matched))
    if not found:
        return Reason(risk.unmatched, touched.path, "no rule knows it")
    return max(found, key=lambda reason: risk.rank(reason.name))


def _of_settings(risk: Risk, touched: Touched) -> Reason:
    found = [Reason(risk.unmatched_key, touched.path, "no setting differs")]
    for key in touched.keys:
        ranks = [rule.name for rule in risk.touches if any(glob(each, dots=True).fullmatch(key) for each in rule.keys)]
        found.append(Reason(max(ranks or [risk.unmatched_key], key=risk.rank), touched.path, f"the setting {key}"))
    return max(reversed(found), key=lambda reason: risk.rank(reason.name))


_globs: dict[tuple[str, bool], re.Pattern[str]] = {}


def glob(pattern: str, *, dots: bool = False) -> re.Pattern[str]:
    """`*` stands for anything but the separator (`/`, or `.` with `dots`), `**` for anything, `?` for one character."""
    found = _globs.get((pattern, dots))
    if found is None:
        apart = r"[^.]" if dots else r"[^/]"
        parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
        known = {"**/": "(?:.*/)?", "**": ".*", "*": f"{apart}*", "?": apart}
        text = "".join(known.get(part, re.escape(part)) for part in parts)
        found = _globs[pattern, dots] = re.compile(text, re.DOTALL)
    return found


def load(text: str, name: str = FILE) -> Risk:
    """The rules that a text states. Raises BadRisk."""
    try:
        risk = msgspec.convert(tomllib.loads(text), Risk)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadRisk(f"{name}: {error}") from None
    if problem := _problem(risk):
        raise BadRisk(f"{name}: {problem}")
    return risk


def shipped() -> str:
    """The rules for a repository that has none of its own."""
    return resources.files("trunkline.release").joinpath(FILE).read_text(encoding="utf-8")


def text_of_base(repo: Path, base: str) -> str:
    """The `risk.toml` of the version named `base`, by which a change from it is judged. Raises NoChange."""
    git = Git(repo)
    return git.file(git.commit(base), FILE) or shipped()


def of_base(repo: Path, base: str) -> Risk:
    """The same, read. Raises BadRisk, NoChange."""
    return load(text_of_base(repo, base), f"{FILE} of {base}")


def _problem(risk: Risk) -> str:
    """The first thing that is wrong, or nothing."""
    named = [risk.unmatched, risk.unmatched_key, *(rule.name for rule in risk.touches)]
    named += [name for approver in risk.approver for name in approver.classes]
    if unknown := [name for name in named if name not in risk.classes]:
        return f"{unknown[0]} is none of the classes {', '.join(risk.classes)}"
    if set(risk.must) != set(risk.classes):
        return f"each class needs its [must.CLASS], {', '.join(set(risk.classes) ^ set(risk.must))} does not fit"
    asked = [check for must in risk.must.values() for check in must.checks]
    asked += [check for besides in risk.environments.values() for check in besides.checks]
    if unknown := [check for check in asked if check not in CHECKS]:
        return f"{unknown[0]} is none of the checks {', '.join(CHECKS)}"
    for rule in risk.touches:
        for line in rule.lines:
            try:
                re.compile(line)
            except re.error as error:
                return f"{line!r} is no regular expression: {error}"
    return ""
