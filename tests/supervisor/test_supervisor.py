"""The supervisor: what it keeps outlives its children, and nothing outlives it."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from trunkline.supervisor.plan import Child, Plan, Ports
from trunkline.supervisor.run import CannotBind, bind_http, bind_sip, bind_tls

PATIENCE_S = 60.0
HEADER = """
import os, signal, socket, sys, time
from trunkline.inherited import descriptors, end_with_parent
end_with_parent()
name, folder = sys.argv[1:3]
def say(text):
    with open(f"{folder}/{name}", "a") as file:
        file.write(f"{os.getpid()} {text}\\n")
"""
ECHO = (
    HEADER
    + """
given = descriptors()
udp = socket.socket(fileno=given["sip-udp"])
memory = given["state"]
os.set_blocking(udp.fileno(), True)
say(f"port {udp.getsockname()[1]} memory {os.pread(memory, 10, 0).decode()}")
os.pwrite(memory, b"kept", 0)
while True:
    data, source = udp.recvfrom(100)
    udp.sendto(b"%d %s" % (os.getpid(), data), source)
"""
)
WAIT = (
    HEADER
    + """
say("up")
signal.signal(signal.SIGTERM, lambda *_: (say("down"), sys.exit(0)))
while True:
    time.sleep(60)
"""
)
TURN = (
    HEADER
    + """
from trunkline.inherited import await_baton
say("ready")
if await_baton():
    say("working")
    time.sleep(60)
"""
)
PORTS = (
    HEADER
    + """
from trunkline.media.ports import RemotePorts
ports = RemotePorts(f"{folder}/ports")
say(" ".join(map(str, ports.ports)))
signal.pause()
"""
)
FAIL = HEADER + "say('failed'); sys.exit(3)"


def eventually(look):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


class Run:
    def __init__(self, folder, children, port=0, ports=None):
        self.folder = folder
        plan = Plan(
            children=[
                Child(name, [sys.executable, "-c", code, name, str(folder)], wants, *options)
                for name, code, wants, *options in children
            ],
            sip_port=port,
            memories=["state"],
            ports=ports,
            stop_s=5.0,
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trunkline.supervisor", plan.to_json()], stderr=subprocess.PIPE, text=True
        )

    def lines(self, name):
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def pid(self, name):
        return int(eventually(lambda: self.lines(name))[-1].split()[0])

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def run(tmp_path):
    made = []

    def start(children, port=0, ports=None):
        made.append(Run(tmp_path, children, port, ports))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()
        one.process.stderr.close()


def state(pid):
    """As the system has it: `S` sleeps, `T` is stopped, `Z` has ended; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid):
    return state(pid) not in ("", "Z")


def ask(port, text):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        client.sendto(text, ("127.0.0.1", port))
        return client.recv(100)


def test_a_killed_child_is_replaced_with_the_same_socket_and_memory(run):
    started = run([("echo", ECHO, ["sip-udp", "state"], True)])
    first = started.pid("echo")
    port = int(started.lines("echo")[0].split()[2])
    assert ask(port, b"a") == b"%d a" % first
    os.kill(first, signal.SIGSTOP)
    eventually(lambda: state(first) == "T")  # what comes now waits in the socket for the next process
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        client.sendto(b"b", ("127.0.0.1", port))
        os.kill(first, signal.SIGKILL)
        pid, said = client.recv(100).split()
    assert int(pid) != first
    assert said == b"b"
    assert started.lines("echo")[1].split()[1:] == ["port", str(port), "memory", "kept"]


def test_a_signal_stops_all_in_order_the_last_first(run):
    started = run([("one", WAIT, [], True), ("two", WAIT, [], False)])
    pids = [started.pid("one"), started.pid("two")]
    assert started.end() == 0
    assert not any(alive(pid) for pid in pids)
    assert [line.split()[1] for line in started.lines("two")] == ["up", "down"]
    assert (started.folder / "two").stat().st_mtime_ns <= (started.folder / "one").stat().st_mtime_ns


def test_children_end_with_a_killed_supervisor(run):
    started = run([("one", WAIT, [], True)])
    pid = started.pid("one")
    started.end(signal.SIGKILL)
    eventually(lambda: not alive(pid))


def test_a_main_child_that_cannot_start_ends_everything_with_its_status(run):
    started = run([("other", WAIT, [], False), ("node", FAIL, [], True)])
    assert started.process.wait(PATIENCE_S) == 3
    assert len(started.lines("node")) == 1


def test_another_child_that_fails_is_tried_again_ever_more_slowly(run):
    started = run([("node", WAIT, [], True), ("media", FAIL, [], False)])
    eventually(lambda: len(started.lines("media")) >= 3)
    assert len({line.split()[0] for line in started.lines("media")}) >= 3
    assert started.end() == 0


def test_the_spare_takes_over_at_once_and_is_replaced(run):
    started = run([("media", TURN, [], False, True), ("node", WAIT, [], True)])
    first = started.pid("media")
    eventually(lambda: len(started.lines("media")) == 3)
    spare = started.pid("media")
    assert [line.split()[1] for line in started.lines("media")] == ["ready", "working", "ready"]
    assert spare != first
    killed = time.monotonic()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: started.lines("media")[3:] == [f"{spare} working"])
    assert time.monotonic() - killed < 1
    eventually(lambda: len(started.lines("media")) == 5)
    third = started.pid("media")
    assert third not in (first, spare)
    assert started.end() == 0
    assert not alive(third)


def test_a_spare_that_dies_is_replaced_and_ends_with_the_supervisor(run):
    started = run([("media", TURN, [], False, True), ("node", WAIT, [], True)])
    eventually(lambda: len(started.lines("media")) == 3)
    spare = started.pid("media")
    started.process.kill()
    eventually(lambda: not alive(spare))
    assert "working" not in started.lines("media")[-1]


def test_a_replaced_process_gets_the_same_rtp_ports(run, tmp_path):
    ports = Ports(str(tmp_path / "ports"), port_min=31_000, port_max=31_400, pairs=20)
    started = run([("media", PORTS, [], False), ("node", WAIT, [], True)], ports=ports)
    first = started.pid("media")
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(started.lines("media")) == 2)
    one, two = (line.split() for line in started.lines("media"))
    assert one[0] != two[0]
    assert one[1:] == two[1:]
    assert len(one[1:]) == 20
    assert started.end() == 0


def test_a_taken_port_is_one_line():
    taken = bind_sip("127.0.0.1", 0)
    port = taken["sip-udp"].getsockname()[1]
    with pytest.raises(CannotBind, match=f"cannot take SIP port {port} on 127.0.0.1: Address already in use; see sip"):
        bind_sip("127.0.0.1", port)
    for one in taken.values():
        one.close()


def test_a_taken_tls_port_is_one_line():
    with bind_tls("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotBind, match=f"cannot take TLS port {port} on 127.0.0.1: .*; see sip.host and sip.tls"):
            bind_tls("127.0.0.1", port)


def test_the_api_has_a_socket_on_every_address_of_its_host():
    bound = bind_http("", 0)
    assert list(bound) == [f"http-{index}" for index in range(len(bound))]
    assert "0.0.0.0" in {one.getsockname()[0] for one in bound.values()}
    port = bound["http-0"].getsockname()[1]
    with pytest.raises(CannotBind, match=f"cannot listen on  port {port}: Address already in use; see server.host"):
        bind_http("", port)
    for one in bound.values():
        one.close()


def test_it_imports_the_standard_library_alone():
    code = "import sys, trunkline.supervisor.run; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "trunkline" in loaded
    assert not {"msgspec", "numpy", "orjson", "uvloop"} & set(loaded)
