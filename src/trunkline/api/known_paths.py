"""Twilio's own paths, so that one we lack answers 501 and not 404.

`twilio_paths.txt` holds a line per path: product, methods, template. Parameter names do not matter here.
Source: Twilio's published OpenAPI documents.
"""

from functools import cache
from importlib.resources import files

from trunkline.api.router import Trie


@cache
def _tries() -> dict[str, Trie[bool]]:
    """Read when a path is first asked for: most processes never need it."""
    tries: dict[str, Trie[bool]] = {}
    for line in files("trunkline.api").joinpath("twilio_paths.txt").read_text("ascii").splitlines():
        if line.startswith("#"):
            continue
        product, methods, template = line.split(" ")
        trie = tries.setdefault(product, Trie())
        for method in methods.split(","):
            trie.add(method, template, True)
    return tries


def methods(product: str, segments: list[str]) -> frozenset[str]:
    """The methods that Twilio serves at a path; empty where it serves none that we know of."""
    trie = _tries().get(product)
    found = None if trie is None else trie.find(segments)
    return frozenset(found or ())
