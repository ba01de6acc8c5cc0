"""The pytest plugin that this package ships (entry point `trunkline`): fixtures for tests that talk to a Trunkline.

    def test_my_app_confirms(trunkline, handset):
        my_app.confirm(handset.number)
        assert handset.receives().body == "Confirmed"

    def test_my_app_answers(trunkline, phone):
        trunkline.answer_at(my_app.url)
        phone.dials().hears("Hello!")

`trunkline` is a `testing.local.Local`: a development server in a process of its own, one for the whole run. It is
loaded by every pytest run in an environment that has the package, so it imports nothing heavy before a fixture is used.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from trunkline.testing.local import Local, RemoteHandset
    from trunkline.testing.phones.client import RemotePhone


@pytest.fixture(scope="session")
def trunkline_settings() -> dict[str, str]:
    """Settings of the server, as variables such as `TRUNKLINE_MESSAGING_SCHEDULE_MIN_S`. Override it in conftest.py."""
    return {}


@pytest.fixture(scope="session")
def trunkline(tmp_path_factory: pytest.TempPathFactory, trunkline_settings: dict[str, str]) -> "Iterator[Local]":
    """A running Trunkline with an account, two numbers and simulated phones."""
    from trunkline.testing.local import Local

    with Local(tmp_path_factory.mktemp("trunkline"), trunkline_settings) as local:
        yield local


@pytest.fixture
def handset(trunkline: "Local") -> "RemoteHandset":
    """A simulated phone that no other test has."""
    return trunkline.handset()


@pytest.fixture
def phone(trunkline: "Local") -> "RemotePhone":
    """A simulated phone for calls that no other test has."""
    return trunkline.phone()
