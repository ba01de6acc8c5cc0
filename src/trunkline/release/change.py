"""A change, as git knows it: which files, which lines, which settings, by whom."""

import os
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

GIT_TIMEOUT_S: Final = 60.0
MAX_DIFF_BYTES: Final = 256 << 20
"""Of one change; a larger one is several."""
MAX_FILES: Final = 50_000


class NoChange(Exception):
    """The change cannot be read; the text is one line."""


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """One file that differs."""

    path: str
    lines: tuple[str, ...] = ()
    """Added and removed ones, without their sign; of a binary file none."""
    keys: tuple[str, ...] = ()
    """Of a settings file: the dotted keys whose value differs."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What lies between two commits."""

    base: str
    """Full commit ids."""
    head: str
    authors: tuple[str, ...]
    """Addresses of all who wrote or committed part of it, lower case."""
    files: tuple[Touched, ...]


def read(repo: Path, base: str, head: str, is_settings: Callable[[str], bool]) -> Change:
    """The change from `base` to `head` in the repository at `repo`. Raises NoChange."""
    git = Git(repo)
    ids = git.commit(base), git.commit(head)
    if not git.is_ancestor(*ids):
        raise NoChange(f"{head} does not follow from {base}: a release is one line of commits; merge or rebase first")
    files = []
    for path, lines in _differing(git.text("diff", "--no-renames", "--no-color", "--unified=0", *ids)):
        keys: tuple[str, ...] = ()
        if is_settings(path):
            old, new = (_flat(path, git.file(one, path)) for one in ids)
            keys = tuple(sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key)))
        files.append(Touched(path=path, lines=lines, keys=keys))
        if len(files) > MAX_FILES:
            raise NoChange(f"more than {MAX_FILES} files differ: make it several releases")
    return Change(base=ids[0], head=ids[1], authors=git.authors(*ids), files=tuple(files))


class Git:
    """Asks one repository; every method raises NoChange."""

    def __init__(self, repo: Path) -> None:
        self._repo = repo

    def text(self, *arguments: str) -> str:
        """What git prints."""
        # Settings of the user (external diff programs, prefixes) must not decide what a change is.
        command = ["git", "-C", str(self._repo), "-c", "core.quotepath=off", "-c", "diff.noprefix=false", *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "GIT_EXTERNAL_DIFF"}
        environment["LC_ALL"] = "C"
        try:
            done = subprocess.run(  # noqa: S603 - git, with arguments that it cannot take for options
                command, capture_output=True, timeout=GIT_TIMEOUT_S, check=False, env=environment
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NoChange(f"git cannot be asked: {error}") from None
        if done.returncode:
            raise NoChange(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip() or 'failed'}")
        if len(done.stdout) > MAX_DIFF_BYTES:
            raise NoChange(f"the difference is larger than {MAX_DIFF_BYTES >> 20} MiB: make it several releases")
        return done.stdout.decode(errors="replace")

    def commit(self, name: str) -> str:
        """The full id of what a name stands for."""
        if name.startswith("-"):
            raise NoChange(f"{name} is no commit")
        return self.text("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}").strip()

    def is_ancestor(self, base: str, head: str) -> bool:
        """Whether `head` contains `base`."""
        return self.text("merge-base", base, head).strip() == base

    def file(self, commit: str, path: str) -> str:
        """A file's text at a commit; empty where it is not there."""
        listed = self.text("ls-tree", "--name-only", commit, "--", path)
        return self.text("show", f"{commit}:{path}") if listed.strip() else ""

    def authors(self, base: str, head: str) -> tuple[str, ...]:
        """The addresses of authors, committers and co-authors."""
        form = "%ae%n%ce%n%(trailers:key=Co-authored-by,valueonly)"
        lines = self.text("log", f"--format={form}", f"{base}..{head}").splitlines()
        found = (line.rpartition("<")[2].rstrip("> ").strip().lower() for line in lines)
        return tuple(sorted({address for address in found if address}))

    def is_clean_at(self, head: str) -> bool:
        """Whether the work tree is exactly what that commit says."""
        return self.commit("HEAD") == head and not self.text("status", "--porcelain", "--untracked-files=no").strip()


def _differing(diff: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Path and differing lines of each file of a unified diff without context."""
    path, lines, in_hunk = "", list[str](), False
    for line in diff.split("\n"):
        if line.startswith("diff --git "):
            if path:
                yield path, tuple(lines)
            path, lines, in_hunk = _path_of(line), [], False
        elif line.startswith("@@"):
            in_hunk = True
        elif in_hunk and line[:1] in "+-" and line:
            lines.append(line[1:])
    if path:
        yield path, tuple(lines)


def _path_of(line: str) -> str:
    """Of `diff --git a/PATH b/PATH`: without renames both are the same."""
    rest = line.removeprefix("diff --git ").strip('"')
    half = (len(rest) - 1) // 2
    return rest[half + 1 :].strip('"').removeprefix("b/")


def _flat(path: str, text: str) -> dict[str, object]:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise NoChange(f"{path} is no TOML: {error}") from None
    return dict(_keys("", read))


def _keys(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _keys(f"{prefix}.{key}" if prefix else str(key), inner)
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        for each in value:
            name = each.get("name", value.index(each)) if isinstance(each, Mapping) else value.index(each)
            yield from _keys(f"{prefix}.{name}", each)
    else:
        yield prefix, value
