"""The alert rules that are shipped: they parse, name metrics that there are, and each is explained."""

import re
from pathlib import Path

import pytest
import yaml

from tests.metrics import test_calls, test_cluster
from tests.test_bootstrap_telemetry import metrics_of, node_with
from trunkline.media.protocol import Stats

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "docs/reference/alerts.yml"
PAGE = ROOT / "docs/howto/observe.md"
PROMETHEUS = {"up"}
"""Made by Prometheus itself."""
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
METRIC = re.compile(r"\b(?:trunkline_\w+|up)\b")


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def names(page: list[str]) -> set[str]:
    """The metrics of a page, whether or not they have samples just now."""
    found = set()
    for line in page:
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            found |= {name.removesuffix("_total") + suffix for suffix in SUFFIXES.get(kind, ("",))}
    return found


@pytest.fixture
async def there(tmp_path: Path) -> set[str]:
    """Every metric of a node that takes calls in a cluster."""
    async with node_with(tmp_path) as (node, _):
        found = names((await metrics_of(node)).splitlines())
    return found | names(test_calls.page(Stats())) | names(test_cluster.page()) | PROMETHEUS


async def test_every_metric_that_a_rule_names_exists(there: set[str]) -> None:
    for rule in rules():
        named = set(METRIC.findall(rule["expr"]))
        assert named, rule["alert"]
        assert named <= there, (rule["alert"], named - there)


async def test_every_metric_of_the_page_exists(there: set[str]) -> None:
    named = set(re.findall(r"\btrunkline_\w+[a-z]", PAGE.read_text()))
    assert named - there - {name.rpartition("_")[0] for name in there} == set()


def test_every_rule_has_what_whoever_is_woken_needs() -> None:
    text = PAGE.read_text()
    seen = set()
    for rule in rules():
        assert rule["alert"] not in seen
        seen.add(rule["alert"])
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        assert re.search(rf"^\| `{rule['alert']}` \|", text, re.MULTILINE), f"{rule['alert']} is not explained"
        assert rule["expr"].count("(") == rule["expr"].count(")")
    explained = set(re.findall(r"^\| `(Trunkline\w+)` \|", text, re.MULTILINE))
    assert explained == seen
