"""The table of resources is complete."""

import ast
import importlib
from pathlib import Path

from trunkline.api import resources, router

API = Path(resources.__file__).parent


def modules_with_routes() -> set[str]:
    """Files of trunkline.api that assign ROUTES at module level."""
    found = set()
    for file in API.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == "ROUTES" for target in targets):
                found.add(file.stem)
    return found


def test_every_resource_file_is_in_the_table() -> None:
    assert set(resources.RESOURCES) == modules_with_routes()


def test_the_table_holds_each_files_own_routes() -> None:
    for name, routes in resources.RESOURCES.items():
        assert importlib.import_module(f"trunkline.api.{name}").ROUTES is routes


def test_all_routes_fit_together() -> None:
    tries = router.build(resources.all_routes())  # raises for two routes in one place
    assert {route.product for route in resources.all_routes()} == set(tries)
