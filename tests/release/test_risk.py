"""A change is of the greatest class that it touches, by the rules of the version that it begins from."""

import pytest

from trunkline.release import change as changes
from trunkline.release.risk import BadRisk, class_of, classify, glob, load, of_base, shipped

from .repo import WRITER, Repo

SETTINGS = """
[server]
port = 1

[[routes]]
name = "default"
prefix = "+1"
connectors = ["one"]
"""


@pytest.fixture
def repo(tmp_path):
    made = Repo(tmp_path / "repo")
    made.commit({"README.md": "one\n", "trunkline.toml": SETTINGS, "src/trunkline/api/a.py": "a = 1\n"})
    return made


def classed(repo: Repo, base: str = "HEAD~1", head: str = "HEAD"):
    risk = of_base(repo.folder, base)
    reasons = classify(risk, changes.read(repo.folder, base, head, risk.is_settings))
    return class_of(risk, reasons), reasons


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "two\n"}, "content"),
        ({"docs/a/b.txt": "x"}, "content"),
        ({"Makefile": "all:\n"}, "configuration"),
        ({"src/trunkline/messaging/routing.py": "x = 1\n"}, "handler"),  # all of src is, whatever else it is
        ({"src/trunkline/voice/calls.py": "x = 1\n"}, "handler"),
        ({"src/trunkline/api/a.py": "a = 2\n"}, "api"),
        ({"src/trunkline/inflight/store.py": "x = 1\n"}, "state"),
        ({"src/trunkline/storage/engines/sqlite/database_schema.py": "x = 1\n"}, "schema"),
        ({"src/trunkline/messaging/usage.py": "x = 1\n"}, "money"),
        ({"src/trunkline/api/b.py": "sql = 'ALTER TABLE flight ADD COLUMN x'\n"}, "schema"),
        ({"something/never/seen": "x"}, "state"),
        ({"README.md": "two\n", "src/trunkline/api/a.py": "a = 2\n"}, "api"),
        ({"trunkline.toml": SETTINGS.replace("+1", "+44")}, "route"),
        ({"trunkline.toml": SETTINGS.replace("port = 1", "port = 2")}, "handler"),
        ({"trunkline.toml": SETTINGS + '[log]\nlevel = "debug"\n'}, "configuration"),
        ({"trunkline.toml": SETTINGS + "[limits]\nspend = 1\n"}, "money"),
        ({"trunkline.toml": SETTINGS + "# a remark\n"}, "configuration"),
    ],
)
def test_class_of_what_is_touched(repo, files, expected):
    repo.commit(files)
    name, reasons = classed(repo)
    assert (name, reasons[0].name) == (expected, expected)


def test_deleted_and_moved_files_count(repo):
    repo.git("mv", "src/trunkline/api/a.py", "notes.md")
    repo.commit({})
    name, reasons = classed(repo)
    assert (name, {each.path for each in reasons}) == ("api", {"src/trunkline/api/a.py", "notes.md"})


def test_names_that_git_would_quote_are_read(repo):
    repo.commit({"docs/größe und b/x.md": "x"})
    assert [each.path for each in classed(repo)[1]] == ["docs/größe und b/x.md"]


def test_no_change_lowers_its_own_bar(repo):
    repo.commit({"risk.toml": shipped().replace('unmatched = "state"', 'unmatched = "content"'), "odd": "x"})
    name, reasons = classed(repo)
    assert name == "money"  # changing the rules is
    assert {each.path: each.name for each in reasons}["odd"] == "state"
    repo.commit({"odd": "y"})
    assert classed(repo)[0] == "content"


def test_everybody_who_took_part_is_an_author(repo):
    repo.commit({"a.md": "x"}, by="Other@Example.com", message="A\n\nCo-authored-by: Third <third@example.com>")
    repo.commit({"a.md": "y"})
    risk = load(shipped())
    change = changes.read(repo.folder, "HEAD~2", "HEAD", risk.is_settings)
    assert change.authors == ("other@example.com", "third@example.com", WRITER)


def test_a_release_is_one_line_of_commits(repo):
    repo.commit({"a.md": "x"})
    repo.git("checkout", "--quiet", "-b", "side", "HEAD~1")
    repo.commit({"b.md": "x"})
    with pytest.raises(changes.NoChange, match="does not follow"):
        changes.read(repo.folder, "main", "side", lambda path: False)


@pytest.mark.parametrize("name", ["nowhere", "--output=/tmp/x", "HEAD^{tree}"])
def test_what_is_no_commit_is_refused(repo, name):
    with pytest.raises(changes.NoChange):
        changes.read(repo.folder, name, "HEAD", lambda path: False)


def test_settings_that_are_no_toml_are_refused(repo):
    repo.commit({"trunkline.toml": "[["})
    with pytest.raises(changes.NoChange, match="no TOML"):
        classed(repo)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("classes = 3", "risk.toml"),
        (shipped().replace('unmatched = "state"', 'unmatched = "fun"'), "fun"),
        (shipped().replace("[must.money]", "[must.fun]"), "must"),
        (shipped().replace('checks = ["tests", "learning"]', 'checks = ["hope"]'), "hope"),
        (shipped().replace("lines = [", 'lines = ["(",'), "regular expression"),
        (shipped().replace("approvals = 2", "approvals = 99"), "approvals"),
    ],
)
def test_rules_that_do_not_fit_are_refused(text, wrong):
    with pytest.raises(BadRisk, match=wrong):
        load(text)


@pytest.mark.parametrize(
    ("pattern", "dots", "hits", "misses"),
    [
        ("*.md", False, ["a.md"], ["a/b.md", "amd"]),
        ("**.md", False, ["a.md", "a/b.md"], ["a.mdx"]),
        ("**/x.toml", False, ["x.toml", "a/b/x.toml"], ["ax.toml"]),
        ("docs/**", False, ["docs/a", "docs/a/b"], ["docs", "adocs/a"]),
        ("routes.*.name", True, ["routes.a.name"], ["routes.a.b.name"]),
        ("routes**", True, ["routes", "routes.a.b"], ["my.routes"]),
    ],
)
def test_globs(pattern, dots, hits, misses):
    compiled = glob(pattern, dots=dots)
    assert [text for text in hits + misses if compiled.fullmatch(text)] == hits


def test_environments_add_to_all_but_one_click():
    risk = load(shipped())
    assert risk.wants("content", "staging").is_one_click
    assert risk.wants("route", "staging").checks == ("tests", "learning", "performance", "soak")
    assert risk.wants("route", "production").checks == ("tests", "learning")
