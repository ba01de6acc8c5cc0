"""Object stores for tests: a shared folder, and a server that speaks S3 (moto)."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from trunkline.storage.objects import Location

START_S = 120.0
BUCKET = "trunkline"


class S3Server:
    """moto's server, in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def start(self) -> "S3Server":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + START_S
        request = urllib.request.Request(f"{self.endpoint}/{BUCKET}", method="PUT")
        while True:
            try:
                with urllib.request.urlopen(request, timeout=2):
                    return self
            except (urllib.error.URLError, OSError):
                assert self._process.poll() is None, "moto did not start"
                assert time.monotonic() < until, "moto does not answer"
                time.sleep(0.05)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def location(self) -> Location:
        """A fresh folder of the bucket."""
        self._made += 1
        return Location(
            url=f"s3://{BUCKET}/test-{self._made}", access_key="key", secret_key="secret", endpoint=self.endpoint
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def shared_folder(path: Path) -> Location:
    """A folder that stands for a mounted one."""
    path.mkdir(exist_ok=True)
    return Location(url=f"file://{path}")


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """One server for all tests of a session."""
    server = S3Server().start()
    yield server
    server.close()
