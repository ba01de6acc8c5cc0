"""Limits on the code itself: sizes, unfinished work, machine paths, and pointers that lead nowhere."""

import ast
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
MAX_READ_BYTES = 2_000_000
"""Larger files are data."""
TEXT = {".py", ".md", ".toml", ".sh", ".js", ".ts", ".json", ".sql", ".yml", ".yaml", ".conf", ".lock", ""}

UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|NotImplemented" r"Error)\b|except (Base)?Exception:\s*pass")
MACHINE_PATH = re.compile(r"(?<![\w./])/(work|farm|home/\w+|root|opt/pypi)/[\w.]")
REGISTRY = re.compile("(pypi|npmjs|pythonhosted|debian)" r"\.org")
POINTER = re.compile(r"\bNext: ([a-z_][\w.]*\w)")


@cache
def files() -> tuple[Path, ...]:
    """Every file of the project: what git tracks, and what it would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git work tree")
    return tuple(path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file())


def sources() -> Iterator[tuple[str, str]]:
    """Name and text of every Python file."""
    for path in files():
        if path.suffix == ".py":
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def lines() -> Iterator[tuple[str, str]]:
    """Place and text of every line of every text file but this one."""
    for path in files():
        if path.suffix not in TEXT or path == Path(__file__) or path.stat().st_size > MAX_READ_BYTES:
            continue
        name = path.relative_to(ROOT)
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            yield f"{name}:{number}", line


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def docstrings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def resolves(dotted: str) -> bool:
    """Whether a dotted path names an attribute that exists."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            target: object = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for name in parts[cut:]:
            if not hasattr(target, name):
                return False
            target = getattr(target, name)
        return True
    return False


def test_files_are_short() -> None:
    long = [f"{name}: {text.count(chr(10))} lines" for name, text in sources() if text.count("\n") > MAX_FILE_LINES]
    assert not long, f"longer than {MAX_FILE_LINES} lines: {long}"


def test_functions_are_short() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, text in sources()
        for node in functions(ast.parse(text))
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long, f"longer than {MAX_FUNCTION_LINES} lines: {long}"


def test_nothing_is_left_unfinished() -> None:
    found = [place for place, line in lines() if UNFINISHED.search(line)]
    assert not found


def test_no_machine_is_named() -> None:
    found = [place for place, line in lines() if MACHINE_PATH.search(line) or REGISTRY.search(line)]
    assert not found


def test_lock_names_versions_and_hashes_only() -> None:
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert "://" not in line
        assert re.match(r"#|[a-z0-9-]+==[\w.]+( ; .*)? \\$|    --hash=sha256:[0-9a-f]{64}( \\)?$|    #", line), line


def test_pointers_lead_somewhere() -> None:
    lost = [
        f"{name}: {dotted}"
        for name, text in sources()
        if name.startswith("src/")
        for docstring in docstrings(ast.parse(text))
        for dotted in POINTER.findall(docstring)
        if not resolves(dotted)
    ]
    assert not lost


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    page = (ROOT / "docs/design/dependencies.md").read_text()
    rows = {name.strip() for row in re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE) for name in row.split(",")}
    wanted = {re.match(r"[\w.-]+", name)[0] for name in named}
    assert wanted - rows == set(), "name what it is for in docs/design/dependencies.md"
    assert rows - wanted <= {"package", "---"}, "no longer a dependency"


def test_every_package_has_its_own_test_folder() -> None:
    """Test modules of equal name clash without it."""
    folders = {path.parent for path in files() if path.name.startswith("test_") and path.suffix == ".py"}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]


def test_the_checks_themselves_find_what_they_look_for() -> None:
    assert UNFINISHED.search("# TO" + "DO: later")
    assert UNFINISHED.search("    raise NotImplemented" + "Error")
    assert MACHINE_PATH.search("cd /wo" + "rk/main")
    assert not MACHINE_PATH.search("https://example.com/work/x")
    assert resolves("trunkline.settings.load")
    assert not resolves("trunkline.settings.lod")
    assert POINTER.findall("Does it. Next: trunkline.settings.load.") == ["trunkline.settings.load"]
