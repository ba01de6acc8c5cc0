"""baresip as a phone: a process without a screen or a sound card, which plays a file, keeps what it hears, and is told
by JSON over TCP what to do."""

import json
import re
import shutil
import socket
import struct
import subprocess
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.interop.conftest import program
from tests.interop.switch import HOST
from tests.ports import free_port
from trunkline.testing.phones.hearing import Listener

PATIENCE_S = 60.0
POLL_S = 0.05
RATE = 8000
WAV_HEADER = 44
MODULES = ("/usr/lib/baresip/modules", "/usr/lib64/baresip/modules", "/usr/local/lib/baresip/modules")
CONFIG = """\
sip_listen {host}:{port}
net_interface {host}
call_max_calls 4
audio_source aufile,{says}
audio_player nil
audio_alert nil
ausrc_format s16
auplay_format s16
auenc_format s16
audec_format s16
rtcp_mux no
jitter_buffer_delay 2-10
module_path {modules}
module g711.so
module aufile.so
module sndfile.so
{modules_more}module_tmp account.so
module_app menu.so
module_app ctrl_tcp.so
ctrl_tcp_listen {host}:{control}
snd_path {folder}/
"""
ACCOUNT = "<sip:{user}@{place};transport={transport}>;audio_codecs={codecs};answermode=auto{more}\n"

Samples = npt.NDArray[np.int16]


class Baresip:
    """See the module. `says` is a WAV file (8 kHz, mono, longer than any call) that it plays in every call."""

    def __init__(
        self, folder: Path, says: Path, *, port: int = 0, host: str = HOST, transport: str = "UDP",
        user: str = "+12025550177", codecs: str = "PCMU", proxy: str = "", domain: str = "", password: str = "",
        srtp: str = "", certificate: str = "", accounts: str = "", modules: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """`domain`: it registers there as `user`, by way of `proxy`. `srtp`: `srtp` (wanted), `srtp-mand` (or no call).
        `certificate`: PEM file for TLS, on the port after its own; whom it connects to is not verified. `accounts`:
        lines of its file, instead of one made of all that. `modules`: which it needs beside those of CONFIG."""
        self.folder = folder
        folder.mkdir(exist_ok=True)
        port = port or free_port(host, 2)
        control = free_port(host)
        more = f';outbound="{proxy};lr"' if proxy else ""
        if not domain:
            more += ";regint=0"
        else:
            more += f";auth_user={user};auth_pass={password};regint=60"
        more += f";mediaenc={srtp}" if srtp else ""
        modules_more = "".join(f"module {name}.so\n" for name in (*modules, *(["srtp"] if srtp else [])))
        modules_more += f"sip_certificate {certificate}\nsip_verify_server no\n" if certificate else ""
        place = domain or f"{host}:{port}"
        path = next(path for path in MODULES if Path(path).is_dir())
        (folder / "config").write_text(CONFIG.format_map({**locals(), "modules": path}))
        account = ACCOUNT.format_map({**locals(), "transport": transport.lower()})
        (folder / "accounts").write_text(accounts or account)
        (folder / "contacts").write_text("")
        command = [program("baresip", "baresip-core"), "-f", str(folder), "-4"]
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
        self._control = self._connect(host, control)
        self._received = b""
        self.events: list[dict[str, Any]] = []
        self.does("about")  # from here on it has taken the connection, and tells events to it

    def _connect(self, host: str, port: int) -> socket.socket:
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return socket.create_connection((host, port), PATIENCE_S)
            except ConnectionRefusedError:
                running = self._process.poll() is None and time.monotonic() < until
                assert running, self._log.read_text(errors="replace")
                time.sleep(POLL_S)

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        shutil.rmtree(self.folder)

    # -- what it does ----------------------------------------------------------------------------------------

    def does(self, command: str, params: str = "") -> str:
        """One command of its menu: dial, hangup, hold, resume, sndcode, audio_debug...; what it prints."""
        text = json.dumps({"command": command, "params": params}).encode()
        self._control.sendall(b"%d:%s," % (len(text), text))
        answer = self._next(lambda one: bool(one.get("response")))
        assert answer["ok"], (command, answer)
        return str(answer["data"])

    def sees(self, kind: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next event of this kind (CALL_ESTABLISHED, CALL_CLOSED...) that was not seen yet."""
        for index, event in enumerate(self.events):
            if event["type"] == kind:
                return self.events.pop(index)
        return self._next(lambda one: one.get("type") == kind, timeout_s)

    def _next(self, wanted: Any, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next message of that kind; events that are something else are kept."""
        until = time.monotonic() + timeout_s
        while True:
            while (one := self._take()) is not None:
                if wanted(one):
                    return one
                if one.get("event"):
                    self.events.append(one)
            self._control.settimeout(max(until - time.monotonic(), 0.001))
            try:
                got = self._control.recv(65_536)
            except TimeoutError:
                raise AssertionError(f"{self.events}\n{self._log.read_text(errors='replace')[-2000:]}") from None
            assert got, self._log.read_text(errors="replace")[-2000:]
            self._received += got

    def _take(self) -> dict[str, Any] | None:
        """A whole netstring of what came, as JSON."""
        length, colon, rest = self._received.partition(b":")
        if not colon or len(rest) <= int(length):
            return None
        self._received = rest[int(length) + 1 :]
        found: dict[str, Any] = json.loads(rest[: int(length)])
        return found

    def prints(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until its log has a text: what happened before it could be told what to do, like its registration."""
        until = time.monotonic() + timeout_s
        while text not in (log := self._log.read_text(errors="replace")):
            assert time.monotonic() < until, log
            time.sleep(POLL_S)

    # -- what it hears ---------------------------------------------------------------------------------------

    def heard(self) -> Samples:
        """All that it received in its last call, at 8 kHz. What is above 4 kHz is not filtered out before."""
        files = sorted(self.folder.glob("dump-*-dec.wav"), key=lambda path: path.stat().st_mtime_ns)
        return growing(files[-1]) if files else np.empty(0, np.int16)

    def forgets(self) -> None:
        """What it heard in calls that are over."""
        for path in self.folder.glob("dump-*.wav"):
            path.unlink()

    def packets(self) -> int:
        """RTP packets received in the running call."""
        found = re.search(r"rcvd=(\d+)", self.does("audio_debug"))
        return int(found[1]) if found else 0

    def receives(self, count: int) -> None:
        """Wait until so many more RTP packets have come."""
        wanted, until = self.packets() + count, time.monotonic() + PATIENCE_S
        while self.packets() < wanted:
            assert time.monotonic() < until, f"{self.packets()} packets, not {wanted}"
            time.sleep(POLL_S)

    def receives_nothing(self) -> None:
        """Wait until no packet has come for 300 ms."""
        before, until = -1, time.monotonic() + PATIENCE_S
        while self.packets() != before:
            assert time.monotonic() < until
            before = self.packets()
            time.sleep(0.3)

    def hears(self, what: Samples, timeout_s: float = PATIENCE_S, after: int = 0) -> int:
        """See `hears`."""
        return hears(self.heard, what, timeout_s, after)


def growing(path: Path) -> Samples:
    """What a WAV file has so far, at 8 kHz: its header does not tell its length yet."""
    octets = path.read_bytes()
    if len(octets) < WAV_HEADER:
        return np.empty(0, np.int16)
    channels, rate = struct.unpack_from("<HI", octets, 22)
    whole = (len(octets) - WAV_HEADER) // (2 * channels) * channels
    return np.frombuffer(octets, np.int16, whole, WAV_HEADER)[:: channels * rate // RATE]


def hears(heard: Callable[[], Samples], what: Samples, timeout_s: float = PATIENCE_S, after: int = 0) -> int:
    """Wait until a sound is in what was heard (from the sample `after` on); the sample where that ended."""
    until = time.monotonic() + timeout_s
    while True:
        samples = heard()
        listener = Listener(what, after)
        match = listener.listen(samples, np.ones(len(samples), np.bool_))
        if match is not None:
            return match.end
        assert time.monotonic() < until, f"heard {len(samples)} samples; the best is {listener.best}"
        time.sleep(POLL_S)


def sound(seconds: float, seed: int, rate: int = RATE) -> Samples:
    """Tones that change every 100 ms: nothing that repeats, and nothing that is taken for a key."""
    dice = np.random.default_rng(seed)
    time_s = np.arange(int(0.1 * rate)) / rate
    parts = [8000 * np.sin(2 * np.pi * hz * time_s) for hz in dice.uniform(300, 600, int(seconds * 10))]
    return np.concatenate(parts).astype(np.int16)


def write_wav(path: Path, samples: Samples, rate: int = RATE, channels: int = 1) -> Path:
    """16 bit; the same in each channel."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").repeat(channels).tobytes())
    return path
