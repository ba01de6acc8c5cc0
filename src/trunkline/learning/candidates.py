"""From what the operator names as a candidate to the settings and the code that it runs with."""

import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trunkline.learning import run
from trunkline.learning.run import PATCHES, Side
from trunkline.learning.runs import CannotLearn
from trunkline.settings import Settings

GIT_S: Final = 20.0
OVERLAID: Final = frozenset(run.HANDED)


def overlay(file: Path) -> dict[str, Any]:
    """A candidate's settings: what stands there replaces what production has, by section and name; lists of tables
    (routes, connectors) are replaced whole. Raises CannotLearn."""
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotLearn(f"{file}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CannotLearn(f"{file}: not valid TOML: {error}") from None
    foreign = sorted(set(tree) - OVERLAID)
    if foreign or not tree:
        raise CannotLearn(
            f"{file}: {foreign[0] if foreign else 'it'} {'decides' if foreign else 'says'} nothing that is "
            f"learned; there are {', '.join(run.HANDED)}"
        )
    return tree


def sides(
    settings: Settings,
    candidates: Sequence[str],
    version: Path | None,
    path: Sequence[Path],
    read: Callable[[Mapping[str, Any]], Settings],
) -> tuple[list[Side], str]:
    """Candidate and control, and the commit of a candidate version. `read` gives production's settings with a tree
    over them. Raises CannotLearn, SettingsError."""
    here = run.settings_for(settings)
    control = Side(name=run.CONTROL, settings=here, python=sys.executable)
    own = Side(name=run.CANDIDATE, settings=here, python=sys.executable, path=[str(one.absolute()) for one in path])
    for given in candidates:
        name, equals, attribute = given.partition("=")
        if equals:
            if name not in PATCHES or not attribute.partition(":")[2]:
                raise CannotLearn(f"{given}: NAME=module:attribute, with a NAME of {', '.join(PATCHES)}")
            own.patches[name] = attribute
        else:
            own.settings = run.settings_for(read(overlay(Path(given))))
    commit = ""
    if version is not None:
        own.python, source, commit = _version(version)
        own.path.insert(0, source)
    if not candidates and version is None:
        raise CannotLearn("no candidate: say --candidate FILE, --candidate NAME=module:attribute, or --version FOLDER")
    return [own, control], commit


def _version(folder: Path) -> tuple[str, str, str]:
    """Interpreter, source folder and commit of another version. Raises CannotLearn."""
    source = folder.absolute() / "src"
    if not (source / "trunkline" / "learning" / "process.py").is_file():
        raise CannotLearn(f"{folder} is no Trunkline that can learn: there is no src/trunkline/learning in it")
    python = folder.absolute() / ".venv" / "bin" / "python"
    git = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, timeout=GIT_S, check=False)  # noqa: S603
    return str(python) if python.is_file() else sys.executable, str(source), done.stdout.strip()
