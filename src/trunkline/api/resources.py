"""Every resource of the API: one file each, named here (a test fails for a file that is missing)."""

from trunkline.api import messages
from trunkline.api.route import Route

RESOURCES: dict[str, tuple[Route, ...]] = {"messages": messages.ROUTES}
"""Module name -> its `ROUTES`. To add a resource: one file, one line here, one test."""


def all_routes() -> tuple[Route, ...]:
    """Every route of every resource."""
    return tuple(route for routes in RESOURCES.values() for route in routes)
