"""A repository to release from: each commit by somebody."""

import os
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trunkline.release.people import public_line

WRITER = "writer@example.com"
ADA, BO = "ada@example.com", "bo@example.com"


class Repo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, by: str = WRITER) -> str:
        who = {f"GIT_{role}_{what}": by for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        hidden = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        done = subprocess.run(
            ["git", "-C", str(self.folder), *arguments], check=True, capture_output=True, text=True,
            env={**os.environ, **who, **hidden},
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, files: dict[str, str], by: str = WRITER, message: str = "A change") -> str:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "--quiet", "-m", message, by=by)
        return self.git("rev-parse", "HEAD")


def key_file(path: Path) -> str:
    """Write a private key as ssh-keygen does; returns the public line."""
    key = Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return public_line(key)


def approvers(ada: str, bo: str) -> str:
    """Their part of a risk.toml."""
    return f"""
[[approver]]
name = "Ada"
email = "{ADA}"
key = "{ada}"

[[approver]]
name = "Bo"
email = "{BO}"
key = "{bo}"
classes = ["money"]

[[approver]]
name = "The writer"
email = "{WRITER}"
key = "{ada}"
"""
