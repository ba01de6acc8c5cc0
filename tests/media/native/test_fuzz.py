"""srtp.c and codecs.c under AddressSanitizer and UBSan: noise, truncated and bent packets, absurd headers, indices at
their edges (fuzz.c says what is promised besides)."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from trunkline.media.native import build, libopus
from trunkline.media.native.coding import NoCodec

HARNESS = Path(__file__).with_name("fuzz.c")
FLAGS = ("-g", "-O1", "-std=c11", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
SECONDS = 60


def opus() -> list[str]:
    """Where libopus is, if anywhere."""
    try:
        return [str(libopus.library()._name)]
    except NoCodec:
        return []


@pytest.mark.slow
def test_random_packets_break_no_promise_and_touch_no_foreign_memory(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("no gcc")
    made, sources = tmp_path / "fuzz", build.SOURCES[0].parent
    built = subprocess.run(
        [gcc, *FLAGS, "-I", str(sources), "-o", str(made), str(HARNESS), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode and "cannot find" in built.stderr:
        pytest.skip("no sanitizers")
    assert built.returncode == 0, built.stderr
    seed = str(time.time_ns() % 2**32)
    run = subprocess.run([made, str(SECONDS), seed, *opus()], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"seed {seed}: {run.stdout[-500:]} {run.stderr[-3000:]}"
    assert int(run.stdout.split()[0]) > 1000
