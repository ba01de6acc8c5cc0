"""A private authority and a server certificate signed by it, made anew for each run."""

from dataclasses import dataclass
from pathlib import Path

from tests.certificates import Authority


@dataclass(frozen=True)
class Certificate:
    """Paths of PEM files."""

    authority: Path
    chain: Path
    key: Path


def make(folder: Path, names: tuple[str, ...]) -> Certificate:
    """Write a certificate for `names` and 127.0.0.1 into `folder`, with the authority that clients must trust."""
    authority = Authority(folder)
    server = authority.issue("server", names)
    return Certificate(authority.path, server.chain, server.key)
