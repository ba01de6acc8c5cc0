"""A network of the tests' own, where they may make one."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.made import Made
from lab.network import Network
from lab.system import Failed

MISSING = [program for program in ("ip", "nft") if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")]
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or (bool(MISSING) and not os.environ.get("CI")),
    reason="needs root, iproute2 and nftables",
)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with Made(tmp_path) as things:
        yield things
        things.remove()


@pytest.fixture
def network(made: Made) -> Network:
    network = Network(f"tt{os.getpid() % 100000}", made)
    try:
        network.begin()
    except Failed as error:
        pytest.skip(f"no network namespaces here: {error}")
    return network
