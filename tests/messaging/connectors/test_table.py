"""The registry of connectors."""

import inspect
import pkgutil
from importlib import import_module

from trunkline.messaging import connectors
from trunkline.messaging.connectors.table import CONNECTORS, Context, make
from trunkline.settings import CONNECTORS as KINDS
from trunkline.settings import Loopback


def test_every_kind_of_the_settings_is_served():
    assert set(CONNECTORS) == set(KINDS)


def test_every_connector_is_in_the_table():
    found = set()
    for module in pkgutil.iter_modules(connectors.__path__):
        name = f"{connectors.__name__}.{module.name}"
        for label, cls in inspect.getmembers(import_module(name), inspect.isclass):
            protocol = getattr(cls, "_is_protocol", False) or inspect.isabstract(cls)
            if cls.__module__ == name and hasattr(cls, "submit") and hasattr(cls, "capacity") and not protocol:
                found.add(f"{name}:{label}")
    assert found == set(CONNECTORS.values())


def test_make():
    assert make(Loopback(name="l"), Context()).name == "l"
