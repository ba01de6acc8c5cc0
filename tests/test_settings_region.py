"""Settings of several regions that could not work together."""

import pytest

from trunkline.settings import Settings, SettingsError, load
from trunkline.settings.cluster import Cluster, Node
from trunkline.settings.kinds import Secret, Secrets
from trunkline.settings.region import OtherRegion, region_problems
from trunkline.settings.sections import Storage

TWO = OtherRegion(name="two", queue=Secrets([Secret("host=b")]), database=Secret("host=b"))


def complaints(*regions, region="one", enabled=True, queue=("host=a",)):
    settings = Settings(
        regions=regions, node=Node(region=region), cluster=Cluster(enabled=enabled),
        storage=Storage(engine="postgres", queue=Secrets(map(Secret, queue)), database=Secret("host=a")),
    )  # fmt: skip
    return list(region_problems(settings))


def test_one_region_needs_nothing():
    assert complaints(region="", enabled=False) == []


def test_two_regions_that_fit():
    assert complaints(TWO) == []


@pytest.mark.parametrize(
    ("regions", "more", "told"),
    [
        ((TWO,), {"region": ""}, "node.region: with"),
        ((TWO,), {"region": "two"}, "is this node's own region"),
        ((TWO, TWO), {}, "two have the same name"),
        ((TWO,), {"enabled": False}, "cluster.enabled: a region is a cluster"),
        ((TWO,), {"queue": ("host=a", "host=c")}, "two.queue: a region has the same queue databases"),
    ],
)
def test_regions_that_cannot_work_are_one_clear_line(regions, more, told):
    (line,) = complaints(*regions, **more)
    assert told in line


def test_connection_strings_of_other_regions_are_secrets(tmp_path):
    file = tmp_path / "trunkline.toml"
    file.write_text('[[regions]]\nname = "two"\nqueue = "env:Q"\ndatabase = "env:D"\nhost = "x"\n')
    with pytest.raises(SettingsError, match=r"regions\[0\].host: no such setting"):
        load(file, {"Q": "a", "D": "b"})
    file.write_text('[[regions]]\nname = "two"\nqueue = "env:Q"\ndatabase = "env:D"\n')
    with pytest.raises(SettingsError, match="environment variable D is not set"):
        load(file, {"Q": "a"})
    assert "secret-thing" not in repr(OtherRegion(name="two", queue=Secrets(), database=Secret("secret-thing")))
