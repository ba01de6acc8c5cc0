"""Path templates and Twilio's known paths."""

import os
from pathlib import Path

import pytest

from tests.api import twilio_paths
from trunkline.api import address, known_paths
from trunkline.api.router import Trie


def test_literals_win_and_the_walk_comes_back() -> None:
    trie: Trie[str] = Trie()
    for template in ("/a/{x}", "/a/b/c", "/a/{x}/d", "/{p}/{q}/{r}/e"):
        trie.add("GET", template, template)

    def find(path: str) -> str | None:
        found = trie.find(path[1:].split("/"))
        return None if found is None else found.get("GET")

    assert find("/a/z") == "/a/{x}"
    assert find("/a/b") == "/a/{x}"  # the literal b leads on to c only
    assert find("/a/b/c") == "/a/b/c"
    assert find("/a/b/d") == "/a/{x}/d"
    assert find("/a/b/c/e") == "/{p}/{q}/{r}/e"
    assert find("/a/") is None
    assert find("/a//d") is None
    assert find("/a") is None
    assert find("/a/b/c/f") is None
    assert find("/") is None


def test_a_route_cannot_be_defined_twice() -> None:
    trie: Trie[int] = Trie()
    trie.add("GET", "/a/{x}", 1)
    trie.add("POST", "/a/{y}", 2)
    with pytest.raises(ValueError, match="twice"):
        trie.add("GET", "/a/{z}", 3)


@pytest.mark.parametrize(
    ("product", "path", "methods"),
    [
        ("api", "/2010-04-01/Accounts/AC1/Messages", {"GET", "POST"}),
        ("api", "/2010-04-01/Accounts/AC1/Calls/CA1", {"GET", "POST", "DELETE"}),
        ("verify", "/v2/Services/VA1/Verifications", {"POST"}),
        ("messaging", "/v1/Services/MG1/PhoneNumbers/PN1", {"GET", "DELETE"}),
        ("api", "/2010-04-01/Nothing", set()),
        ("nothing", "/v1/Services", set()),
    ],
)
def test_known_paths(product: str, path: str, methods: set[str]) -> None:
    assert known_paths.methods(product, path[1:].split("/")) == methods


def test_every_known_product_can_be_addressed() -> None:
    text = (Path(known_paths.__file__).parent / "twilio_paths.txt").read_text()
    products = {line.split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert products <= address.PRODUCTS


@pytest.mark.skipif("TWILIO_SPECS" not in os.environ, reason="TWILIO_SPECS names no folder of OpenAPI documents")
def test_known_paths_are_the_specifications() -> None:
    text = (Path(known_paths.__file__).parent / "twilio_paths.txt").read_text()
    assert text == twilio_paths.compact(Path(os.environ["TWILIO_SPECS"]))
