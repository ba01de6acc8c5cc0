"""Results are kept, read again and put into the page, with what was not measured."""

from pathlib import Path

import msgspec
from lab.faults import APART, FAULTS
from lab.ledgers import Request
from lab.report import Run
from lab.verdict import messages

from lab import report

PAGE = f"# Page\n\n{report.BEGIN}\nformer table\n{report.END}\n\nrest\n"


def run(fault: str = "kill-zone", *, nodes: int = 3, problem: str = "") -> Run:
    found = messages([Request("raw", "a", 1.0, 2.0, "201", "SM1", 1)], {}, {})
    return Run(
        fault=fault, hit="a", nodes=nodes, clusters=3, hold_s=1.0, whole_s=1.0, messages=found, problem=problem
    )  # fmt: skip


def test_every_fault_has_a_line() -> None:
    lines = report.markdown([run()]).splitlines()
    assert len(lines) == 2 + len(FAULTS) + len(APART)
    assert len({line.count("|") for line in lines}) == 1
    (measured,) = [line for line in lines if line.startswith("| kill-zone |")]
    assert measured.startswith("| kill-zone | 1 | 1 | 1 | 1 |"), "one run, one accepted, lost, without a callback"
    assert sum(report.NOT_MEASURED in line for line in lines) == len(FAULTS) - 1
    assert all(any(where in line for line in lines) for where in APART.values())


def test_runs_of_other_sizes_or_with_a_problem_do_not_count() -> None:
    text = report.markdown([run(nodes=1), run(problem="not whole")])
    assert "| kill-zone | not measured" in text


def test_newer_runs_take_the_place_of_older_ones() -> None:
    def line(*runs: Run) -> str:
        return next(line for line in report.markdown(list(runs), since=10).splitlines() if line.startswith("| kill-z"))

    old, new = (msgspec.structs.replace(run(), at=at, version=version) for at, version in ((5, "aaa"), (15, "bbb")))
    assert line(old).endswith("| aaa |"), "better than none"
    assert line(old, new).startswith("| kill-zone | 1 |")
    assert line(old, new).endswith("| bbb |")
    assert line(new, msgspec.structs.replace(new, version="ccc")).endswith("| bbb to ccc |")


def test_the_page_is_changed_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    (tmp_path / "kill-zone-3.jsonl").write_bytes(msgspec.json.encode({"at": 1, **msgspec.to_builtins(run())}) + b"\n")
    assert report.update(page, tmp_path) == 1
    text = page.read_text()
    assert text.startswith("# Page\n")
    assert text.endswith("\n\nrest\n")
    assert "former" not in text
    assert "| kill-zone | 1 |" in text
    assert report.update(page, tmp_path) == 1
    assert page.read_text() == text


def test_the_page_of_the_reference_has_the_marks() -> None:
    text = report.PAGE.read_text()
    assert text.count(report.BEGIN) == text.count(report.END) == 1
