"""The media process: `python -m trunkline.media.process --config-json '{...}'`, with the fields of `Config`.

Under the supervisor it gets its memory (`state_fd`, `ring_fd`) and its ports (`ports_path`) from there, and a successor
goes on with the same legs; one that is all set waits for its turn meanwhile. Stand-alone it makes them itself, and
starts the recorder as a child.

The loop: wait for the next tick's time while carrying out commands, do the tick, tell what happened. Ticks have
absolute times (multiples of 20 ms of the monotonic clock), so that no error adds up; those missed are skipped.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: its threads would spin beside the tick

import argparse
import contextlib
import gc
import logging
import resource
import select
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from types import FrameType
from typing import Final

import msgspec
import numpy as np

from trunkline.inherited import await_baton, descriptors, end_with_parent
from trunkline.media import native, protocol
from trunkline.media.control import Control
from trunkline.media.engine.engine import Engine, Settings
from trunkline.media.engine.record_ring import RecordRing, RingMismatch, frames_for
from trunkline.media.engine.sounds import Sounds
from trunkline.media.engine.state import TICK_NS, TICKS_PER_S, State, StateMismatch
from trunkline.media.fence import FenceMemory
from trunkline.media.native.coding import OpusSettings
from trunkline.media.native.interface import Helper
from trunkline.media.ports import SLOTS_PER_LEG, NoPorts, PortKeeper, PortSet, RemotePorts

logger = logging.getLogger(__name__)

RECORDINGS_PER_LEG: Final = 2
PRIORITY: Final = 10
"""Of SCHED_FIFO."""
COMMANDS_LEAST_NS: Final = 1_000_000
"""Time that commands get between two ticks even when the ticks are late."""
COMMANDS_END_NS: Final = 1_000_000
"""How long before a tick no further command is begun."""
COLLECT_EVERY: Final = 5 * TICKS_PER_S
COLLECT_ALL_EVERY: Final = 60 * TICKS_PER_S
STATS_EVERY: Final = 5 * TICKS_PER_S
RECORDER_EVERY: Final = TICKS_PER_S
"""Ticks between looks at whether the recorder still runs."""
MAX_FAILED: Final = 50
"""Ticks in a row that may fail."""
RECORDER_END_S: Final = 10.0


class Config(msgspec.Struct, kw_only=True):
    """What the process is told."""

    control: str
    """Path of the control socket."""
    host: str = "127.0.0.1"
    port_min: int = 20_000
    port_max: int = 29_998
    legs: int = 1000
    jitter_min_ms: int = 40
    jitter_max_ms: int = 200
    dtmf_in_band: bool = True
    quarantine_s: float = 5.0
    opus_bitrate: int = 28_000
    opus_complexity: int = 1
    priority: bool = False
    ports_path: str = ""
    """Socket of a ports.PortService; empty: open ports oneself."""
    state_fd: int | str = -1
    """Memory of the State (empty at first): a descriptor, or the name of one from the supervisor; -1: make it."""
    ring_fd: int | str = -1
    """Memory of the RecordRing, in the same way."""
    fence_fd: int | str = -1
    """Memory of the fence (trunkline.media.fence), in the same way; -1: there is none, this host is alone."""
    recordings: str = ""
    """Folder under which recordings lie; with it, and without `ring_fd`, the recorder is started as a child."""
    helper: str = ""
    """`compiled`, `fallback`; empty: what there is."""


class MediaProcess:
    """Everything put together. `run` returns after SIGTERM or `stop`."""

    def __init__(self, config: Config, helper: Helper) -> None:
        """Raises RingMismatch, NoPorts, OSError."""
        self.config = config
        _raise_file_limit()
        slots = min(config.legs * SLOTS_PER_LEG, (config.port_max - config.port_min) // 2 + 1)
        recordings = config.legs * RECORDINGS_PER_LEG
        self.state_fd = _memory(config.state_fd, "trunkline-media-state")
        self.ring_fd = _memory(config.ring_fd, "trunkline-record-ring")
        ring = RecordRing(self.ring_fd, slots=recordings, frames=frames_for(config.legs))
        epoch = time.time_ns() // 1_000_000
        state = _state(self.state_fd, config.legs, slots, ring.slots, epoch)
        state.tick = state.tick or time.monotonic_ns() // TICK_NS
        if config.ports_path:
            self.ports: PortSet = RemotePorts(config.ports_path)
        else:
            self.ports = PortSet(PortKeeper(config.host, config.port_min, config.port_max, slots))
            self.ports.more()
        settings = Settings(
            config.legs, config.jitter_min_ms, config.jitter_max_ms, config.dtmf_in_band, config.quarantine_s,
            OpusSettings(config.opus_bitrate, config.opus_complexity),
        )  # fmt: skip
        # A successor reads what is playing before its first tick, later prompts beside the ticks.
        self.sounds = Sounds(background=not state.taken_over)
        self.engine = Engine(settings, state, ring, helper, self.ports, self.sounds)
        if config.fence_fd != -1:
            memory = FenceMemory(_memory(config.fence_fd, "trunkline-media-fence")).memory
            self.engine.until = np.frombuffer(memory, np.int64, 1)
        self.sounds.background = True
        self._offered = 0
        self._offer()
        self.engine.sockets_ready()
        self._epoll = select.epoll()
        self.control = Control(config.control, self.engine, self._epoll)
        if isinstance(self.ports, RemotePorts):
            self._epoll.register(self.ports, select.EPOLLIN)
        self.stats = protocol.Stats(helper=helper.name, tick_us=[0] * (len(protocol.TICK_BOUNDS_US) + 1))
        self._stopping = False
        self._failed = 0
        self._recorder: subprocess.Popen[bytes] | None = None

    def _offer(self) -> None:
        """Tell the engine of slots that have sockets now."""
        most = self.engine.state.slots
        while self._offered < min(len(self.ports), most):
            self.engine.slots.offer(self._offered, self.ports.ports[self._offered])
            self._offered += 1

    def stop(self) -> None:
        """End after this tick; the legs stay in the State."""
        self._stopping = True

    def run(self) -> None:
        """Tick until stopped."""
        if self.config.priority:
            _real_time()
        self._look_after_recorder()
        gc.collect()
        gc.freeze()
        gc.disable()
        number = time.monotonic_ns() // TICK_NS + 1
        try:
            while not self._stopping:
                self._wait(number * TICK_NS)
                number = self._tick(number)
        finally:
            gc.enable()
            self.close()

    def close(self) -> None:
        """Close the control socket and end the recorder (it writes what it has)."""
        self.control.close()
        self._epoll.close()
        self.sounds.close()
        if self._recorder is not None:
            self._recorder.terminate()
            try:
                self._recorder.wait(RECORDER_END_S)
            except subprocess.TimeoutExpired:
                self._recorder.kill()
                self._recorder.wait()

    def _wait(self, deadline: int) -> None:
        """Until the tick's time: input, commands, sleep."""
        commands_end = max(deadline - COMMANDS_END_NS, time.monotonic_ns() + COMMANDS_LEAST_NS)
        self._poll(0.0)
        while True:
            more = self.control.work(commands_end)
            self.control.flush()
            left = deadline - time.monotonic_ns()
            if left <= 0:
                return
            if left > 2 * COMMANDS_END_NS and not more:
                # epoll counts in milliseconds and rounds up.
                self._poll((left - 2 * COMMANDS_END_NS) / 1e9)
            else:
                time.sleep(left / 1e9)
                return

    def _poll(self, timeout: float) -> None:
        for fd, mask in self._epoll.poll(timeout):
            if isinstance(self.ports, RemotePorts) and fd == self.ports.fileno():
                self._receive_ports(self.ports)
            else:
                self.control.ready(fd, mask)

    def _receive_ports(self, ports: RemotePorts) -> None:
        try:
            ports.receive()
        except BlockingIOError:
            return
        except OSError as error:
            logger.error("no more RTP ports: %s", error)
            self._epoll.unregister(ports)
            return
        self._offer()

    def _tick(self, number: int) -> int:
        """Do the tick that it is time for; the number of the next."""
        began = time.monotonic_ns()
        now = began // TICK_NS
        stats = self.stats
        if now > number:
            stats.skipped += now - number
        self._advance(max(now, number))
        self._housekeeping(max(now, number))
        self.control.flush()
        took = (time.monotonic_ns() - began) // 1000
        stats.ticks += 1
        stats.tick_sum_us += took
        stats.tick_us[bisect_left(protocol.TICK_BOUNDS_US, took)] += 1
        return max(now, number) + 1

    def _advance(self, number: int) -> None:
        """A tick of the engine. An error in one must not end every call: it is told, and the next tick goes on; many
        in a row end the process, whose successor may do better."""
        try:
            self.engine.tick(number)
            self._failed = 0
        except Exception:
            self._failed += 1
            logger.exception("tick %d failed", number)
            self.engine.state.tick = number
            if self._failed >= MAX_FAILED:
                raise

    def _housekeeping(self, number: int) -> None:
        if self.engine.slots.short and not self.ports.exhausted and self._offered < self.engine.state.slots:
            self.ports.more()
            self._offer()
        if number % COLLECT_EVERY == 0:
            gc.collect(2 if number % COLLECT_ALL_EVERY == 0 else 1)
        if number % STATS_EVERY == COLLECT_EVERY // 2:
            self._tell_stats()
        if number % RECORDER_EVERY == RECORDER_EVERY // 2:
            self._look_after_recorder()

    def _tell_stats(self) -> None:
        engine, stats = self.engine, self.stats
        stats.legs = len(engine.legs)
        stats.packets_received, stats.packets_sent = engine.packets_received, engine.packets_sent
        stats.packets_fenced = engine.packets_fenced
        stats.packets_foreign, stats.send_errors = engine.receiver.foreign, engine.send_errors
        stats.packets_not_authentic, stats.packets_replayed = engine.secure.not_authentic, engine.secure.replayed
        stats.recorded_dropped = engine.ring.dropped
        stats.at_ms = time.time_ns() // 1_000_000
        engine.events.append(stats)

    def _look_after_recorder(self) -> None:
        """Start the recorder, or start it again, where that is ours to do."""
        if not self.config.recordings or self.config.ring_fd != -1:
            return
        if self._recorder is not None and self._recorder.poll() is None:
            return
        command = [sys.executable, "-m", "trunkline.media.recorder"]
        command += ["--ring", str(self.ring_fd), "--folder", self.config.recordings]
        self._recorder = subprocess.Popen(command, pass_fds=(self.ring_fd,))  # noqa: S603


def _memory(given: int | str, name: str) -> int:
    if isinstance(given, str):
        return descriptors()[given]
    return given if given >= 0 else os.memfd_create(name, os.MFD_CLOEXEC)


def _state(fd: int, legs: int, slots: int, recordings: int, epoch: int) -> State:
    """The state in that memory; memory of another layout (another release's, other settings) is laid out anew."""
    try:
        return State(fd, legs=legs, slots=slots, recordings=recordings, epoch=epoch)
    except StateMismatch as error:
        logger.error("the legs of the process before are lost: %s", error)
        os.ftruncate(fd, 0)
        return State(fd, legs=legs, slots=slots, recordings=recordings, epoch=epoch)


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))


def _real_time() -> None:
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError as error:
        logger.info("no real-time priority: %s", error)


def main(arguments: list[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(description="Trunkline's media process")
    parser.add_argument("--config-json", required=True)
    config = msgspec.json.decode(parser.parse_args(arguments).config_json, type=Config)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s media %(levelname)s %(message)s")
    end_with_parent()
    helper = native.load(config.helper)
    if not await_baton():
        return 0
    try:
        process = MediaProcess(config, helper)
    except RingMismatch as error:
        logger.error("cannot go on with the memory given: %s", error)
        return 3
    except (NoPorts, OSError) as error:
        logger.error("cannot start: %s", error)
        return 1

    def end(number: int, frame: FrameType | None) -> None:
        process.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    process.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
