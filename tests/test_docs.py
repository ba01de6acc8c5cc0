"""The documentation is true: links lead somewhere, commands and settings exist, code marked as runnable runs.

Code blocks say in their first line what is done with them:

    ```python             compiles                 ```python run        runs against a server
    ```javascript         -                        ```javascript run    the same, in Node
    ```sh                 commands exist           ```sh run            runs against a server
    ```python test        passes under pytest with the fixtures that the package ships
    ```toml               loads as a settings file ```sql run           `trunkline archive query` takes it
    ```python file=PATH   a file of a walk-through, and ```diff file=PATH a change: applied to a copy of the sources,
                          where the page's tests must pass
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from tests.cli.test_main import certificate
from trunkline import settings
from trunkline.cli import app
from trunkline.testing.local import Local

ROOT = Path(__file__).resolve().parents[1]
NODE_MODULES = ROOT / "tests/conformance/node/node_modules"
SERVER = "http://127.0.0.1:8080"
"""Where the pages say the server is."""
TIMEOUT_S = 120
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
WALKS = [ROOT / f"docs/howto/add-a-{what}.md" for what in ("resource", "connector", "verb")]
LIVE_SHELLS = {"python": [sys.executable], "javascript": ["node"], "sh": ["bash", "-euo", "pipefail"]}

FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
COMMAND = re.compile(r"(?:^ *|`|&& |/)trunkline (?=[a-z-])([^`\n#|]*)", re.MULTILINE)
TARGET = re.compile(r"(?:^ +|`)make ([a-z][a-z-]*)", re.MULTILINE)
SECRET = re.compile(r"env:([A-Z_]+)")


class Block(NamedTuple):
    """A fenced code block."""

    page: Path
    line: int
    language: str
    mark: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


@cache
def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, line, match[1], match[2].strip(), match[3]))
    return found


def having(language: str, mark: str) -> list[Block]:
    return [block for block in blocks() if (block.language, block.mark) == (language, mark)]


def cases(*chosen: Block) -> list[object]:
    return [pytest.param(block, id=block.name) for block in chosen]


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# -- pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        path, _, fragment = link.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = page.parent / path if path else page
        if not target.exists():
            lost.append(link)
        elif fragment:
            headings = HEADING.findall(target.read_text(encoding="utf-8"))
            lost += [] if fragment in map(anchor, headings) else [link]
    assert not lost


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert pages - set(LINK.findall(index)) == set()


def options_of(words: list[str]) -> tuple[list[str], set[str]]:
    """The command that words begin with, and the options that it and those before it take."""
    command: object = typer.main.get_command(app)
    path: list[str] = []
    known = {"--help"}
    while True:
        known |= {option for parameter in command.params for option in parameter.opts}  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {})
        words = [word for word in words if not inner or not word.startswith("-")] if not path else words
        following = next((word for word in words[:3] if word in inner), None)
        if following is None:
            return path, known
        path.append(following)
        command = inner[following]
        words = words[words.index(following) + 1 :]


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_commands_exist(page: Path) -> None:
    unknown = []
    for line in COMMAND.findall(page.read_text(encoding="utf-8")):
        words = line.partition(" -- ")[0].split()  # what follows is another command
        path, options = options_of(words)
        first = typer.main.get_command(app).commands[path[0]] if path else None  # type: ignore[attr-defined]
        leaf = first is not None and (first.invoke_without_command if hasattr(first, "commands") else True)
        if not path or (not leaf and len(path) == 1):
            unknown.append(line)
        unknown += [f"{line}: {word}" for word in words if word.startswith("--") and word.split("=")[0] not in options]
    assert not unknown


def test_targets_of_make_exist() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in PAGES for target in TARGET.findall(page.read_text(encoding="utf-8"))}
    assert {"demo", "test"} <= named <= known


def test_files_named_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)*/(?:[a-z_]+\.py)?)`", text)
    assert len(named) > 10
    assert [name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "src/trunkline"))] == []


# -- blocks that are read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", cases(*(b for b in blocks() if b.language == "python")))
def test_python_compiles(block: Block) -> None:
    compile(block.code, block.name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("block", cases(*having("toml", "")))
def test_settings_load(block: Block, tmp_path: Path) -> None:
    file, pair = tmp_path / "trunkline.toml", tmp_path / "pair.pem"
    if "tls_cert" in block.code:
        pair.write_bytes(b"".join(certificate(datetime.now(UTC) + timedelta(days=30))))
    file.write_text(re.sub(r'= "[^"]*\.pem"|= "[^"]*tls\.key"', f'= "{pair}"', block.code))
    environment = dict.fromkeys(SECRET.findall(block.code), "x" * 64) | {"TRUNKLINE_MASTER_KEY": "0" * 64}
    assert settings.load(file, environment).source


def test_every_block_is_looked_at() -> None:
    known = {"python", "javascript", "sh", "toml", "sql", "diff", ""}
    marks = re.compile(r"|run|test|file=[\w/.]+")
    odd = [block.name for block in blocks() if block.language not in known or not marks.fullmatch(block.mark)]
    assert not odd


# -- blocks that run ---------------------------------------------------------------------------------------------


def environment(local: Local) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    return {**kept, **local.environment, "NODE_PATH": str(NODE_MODULES)}


@pytest.mark.parametrize("block", cases(*(b for language in LIVE_SHELLS for b in having(language, "run"))))
def test_it_runs(block: Block, trunkline: Local, tmp_path: Path) -> None:
    command = LIVE_SHELLS[block.language]
    if block.language == "javascript" and not (shutil.which("node") and (NODE_MODULES / "twilio").is_dir()):
        pytest.skip("node or Twilio's SDK for it is not installed (scripts/test-setup.sh)")
    file = tmp_path / f"block.{block.language}"
    file.write_text(block.code.replace(SERVER, trunkline.url))
    done = subprocess.run(
        [*command, str(file)], env=environment(trunkline), cwd=tmp_path, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", cases(*having("sql", "run")))
def test_queries_are_taken(block: Block, trunkline: Local) -> None:
    command = [sys.executable, "-m", "trunkline", "--data", str(trunkline.folder / "data"), "archive", "query"]
    done = subprocess.run([*command, block.code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr


def test_tests_for_users_pass(tmp_path: Path) -> None:
    for number, block in enumerate(having("python", "test")):
        (tmp_path / f"test_page_{number}.py").write_text(block.code)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert len(having("python", "test")) >= 3


# -- walk-throughs -----------------------------------------------------------------------------------------------


def changed(text: str, diff: str) -> str:
    """The text with a change of context, `-` and `+` lines applied in the one place where it fits."""
    before = "".join(line[1:] + "\n" for line in diff.splitlines() if line[:1] in (" ", "-"))
    after = "".join(line[1:] + "\n" for line in diff.splitlines() if line[:1] in (" ", "+"))
    assert text.count(before) == 1, f"fits in {text.count(before)} places:\n{diff}"
    return text.replace(before, after)


def applied(page: Path, folder: Path) -> Iterator[str]:
    """Apply a page to a copy of the sources; yields its tests."""
    for block in blocks():
        if block.page == page and block.mark.startswith("file="):
            name = block.mark.removeprefix("file=")
            file = folder / name
            if block.language == "diff":
                file.write_text(changed(file.read_text(), block.code))
            else:
                assert not file.exists(), f"{name} is there already"
                file.write_text(block.code)
            if name.startswith("tests/"):
                yield name


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in WALKS])
def test_walk_throughs_work(page: Path, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "node_modules", "*.egg-info")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    tests = list(applied(page, tmp_path))
    assert len(tests) == 1
    folder = Path(tests[0]).parent
    table = next(name for name in ("test_resources.py", "test_table.py") if (tmp_path / folder / name).exists())
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", tests[0], folder / table],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "src")}, capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    checked = [
        str(block.mark.removeprefix("file=")) for block in blocks() if block.page == page and "src/" in block.mark
    ]
    for tool in (["ruff", "check", *checked], ["ruff", "format", "--check", *checked]):
        done = subprocess.run(
            [sys.executable, "-m", *tool], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, done.stdout


def test_a_change_must_fit_in_one_place() -> None:
    assert changed("a\nb\nc\n", " a\n-b\n+x\n c\n") == "a\nx\nc\n"
    with pytest.raises(AssertionError, match="fits in 2 places"):
        changed("a\na\n", "-a\n+b\n")
