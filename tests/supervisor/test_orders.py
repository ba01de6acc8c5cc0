"""Orders to a supervisor that runs, and sockets that no process's end closes."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from tests.supervisor.test_supervisor import HEADER, PATIENCE_S, alive, eventually
from trunkline.inherited import NAMES, RUN
from trunkline.supervisor.orders import NoSupervisor, give
from trunkline.supervisor.plan import Child, Plan

NODE = (
    HEADER
    + """
import json
from trunkline.inherited import BATON, await_baton, channel
ours = channel()
version, state = sys.argv[3], {"well": True}
if BATON in descriptors():
    if version == "broken":
        sys.exit(7)
    ours.say({"event": "warm", "takes": ["connections", "begun"]})
    if not await_baton():
        sys.exit(0)
    if version == "fails":
        sys.exit(8)
    if version == "dies":
        ours.say({"event": "ready"})
        sys.exit(9)
listener = socket.socket(fileno=descriptors()["http-0"])
say(f"serves {version}")
ours.say({"event": "ready"})
import select
held = []
while True:
    ready, _, _ = select.select([ours, listener], [], [])
    if listener in ready:
        one, _ = listener.accept()
        one.sendall(f"{version} {os.getpid()}".encode())
        held.append(one)
    if ours in ready:
        message, given = ours.heard()
        if message["do"] == "health":
            ours.say({"event": "health", "ok": version != "unwell", "why": "unwell", "calls": 0})
        elif message["do"] == "connections":
            for number in given:
                held.append(socket.socket(fileno=number))
                held[-1].sendall(f"kept by {version};".encode())
        elif message["do"] == "begun":
            for number, memory in zip(given[::2], given[1::2]):
                text = os.pread(memory, 100, 0).decode()
                socket.socket(fileno=number).sendall(f"{version} goes on with {text}".encode())
        elif message["do"] == "hand-over":
            listener.close()
            ours.say({"event": "closed"})
            say("takes " + " ".join(message["takes"]))
            if version == "begins":
                memory = os.memfd_create("begun")
                os.write(memory, b"what was read")
                for one in held:
                    ours.say({"event": "begun"}, (one.fileno(), memory))
                    ours.say({"event": "of a later release"}, (one.fileno(),))
                held.clear()
            ours.say({"event": "connections"}, tuple(one.fileno() for one in held))
            ours.say({"event": "released"})
            say("leaves")
            os._exit(0)
"""
)


class Run:
    def __init__(self, folder):
        self.folder = folder
        self.path = str(folder / "orders")
        self.code = folder / "node.py"
        self.code.write_text(NODE)
        argv = [sys.executable, str(self.code), "node", str(folder), "one"]
        plan = Plan([Child("node", argv, ["http-"], main=True)], sip_port=-1, http_port=0, control=self.path)
        kept = {name: value for name, value in os.environ.items() if name not in (NAMES, RUN)}
        command = [sys.executable, "-m", "trunkline.supervisor", plan.to_json()]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=kept)
        eventually(lambda: "serves one" in self.said())
        self.port = self.find_port()

    def said(self):
        path = self.folder / "node"
        return path.read_text() if path.exists() else ""

    def find_port(self):
        inodes = {os.readlink(f"/proc/{self.process.pid}/fd/{n}") for n in os.listdir(f"/proc/{self.process.pid}/fd")}
        with open(f"/proc/{self.process.pid}/net/tcp") as rows:
            fields = [row.split() for row in rows][1:]
        (port,) = {int(f[1].rpartition(":")[2], 16) for f in fields if f[3] == "0A" and f"socket:[{f[9]}]" in inodes}
        return port

    def order(self, **order):
        return list(give(self.path, {"grace_s": 0.2, **order}, PATIENCE_S))

    def dial(self):
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)

    def answer(self):
        with self.dial() as client:
            return client.recv(100).decode().split()


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    made.process.stderr.close()


def other(run, version):
    """An interpreter whose node is of another version."""
    path = run.folder / version
    path.write_text(f'#!/bin/sh\nexec {sys.executable} "$1" "$2" "$3" {version}\n')
    path.chmod(0o700)
    return str(path)


def test_a_restart_puts_another_process_behind_the_same_socket(run):
    _, first = run.answer()
    with run.dial() as kept:
        assert kept.recv(100).decode().split() == ["one", first]
        said = run.order(do="restart")
        assert said[-1]["ok"], said
        assert kept.recv(100) == b"kept by one;"
    version, second = run.answer()
    assert (version, second != first) == ("one", True)
    assert not alive(int(first))


def test_sighup_is_a_restart(run):
    _, first = run.answer()
    run.process.send_signal(signal.SIGHUP)
    eventually(lambda: run.said().count("serves one") == 2)
    assert run.answer()[1] != first


def test_an_upgrade_stays_and_a_crash_starts_the_new_version(run):
    assert run.order(do="upgrade", python=other(run, "two"))[-1]["ok"]
    version, pid = run.answer()
    assert version == "two"
    os.kill(int(pid), signal.SIGKILL)
    assert run.answer()[0] == "two"


@pytest.mark.parametrize("version", ["broken", "fails", "unwell", "gone"])
def test_a_version_that_does_not_work_leaves_the_old_one(run, version):
    python = other(run, version) if version != "gone" else str(run.folder / "gone")
    said = run.order(do="upgrade", python=python)[-1]
    assert not said["ok"]
    assert said["text"]
    assert run.answer()[0] == "one"
    assert run.order(do="restart")[-1]["ok"]
    assert run.answer()[0] == "one"


def test_status_tells_what_runs(run):
    (status,) = run.order(do="status")
    assert [(child["name"], child["python"]) for child in status["children"]] == [("node", sys.executable)]
    assert (status["pid"], status["stage"], status["handovers"]) == (run.process.pid, "", 0)
    run.order(do="restart")
    (status,) = run.order(do="status")
    assert (status["handovers"], status["last"]["ok"]) == (1, True)


def test_orders_that_cannot_be_followed_say_so(run, tmp_path):
    assert "no such order" in run.order(do="dance")[-1]["text"]
    assert "no restart in its grace time" in run.order(do="back")[-1]["text"]
    assert "no media process" in run.order(do="media")[-1]["text"]
    with pytest.raises(NoSupervisor, match="no supervisor takes orders"):
        list(give(str(tmp_path / "nobody"), {"do": "status"}))


def test_a_stop_in_the_middle_of_a_restart_leaves_nothing(run):
    answers = give(run.path, {"do": "restart", "grace_s": 60}, PATIENCE_S)
    for said in answers:
        if "serves" in said.get("text", ""):
            break
    pid = int(run.answer()[1])
    run.process.terminate()
    run.process.wait(PATIENCE_S)
    assert not alive(pid)


def test_requests_under_way_are_passed_on_with_what_was_read(run):
    assert run.order(do="upgrade", python=other(run, "begins"))[-1]["ok"]
    with run.dial() as client:
        assert client.recv(100).split()[0] == b"begins"
        assert run.order(do="upgrade", python=other(run, "two"))[-1]["ok"]
        assert client.recv(100) == b"two goes on with what was read"
    assert "takes connections begun" in run.said()


@pytest.mark.parametrize(("version", "told"), [("fails", b"one goes on with what was read"), ("dies", b"")])
def test_what_a_process_had_begun_that_died_nobody_does_again(run, version, told):
    """Where it served already; one that never did has done nothing."""
    run.code.write_text(NODE.replace('version == "begins"', 'version == "one"'))
    assert run.order(do="restart")[-1]["ok"]
    with run.dial() as client:
        assert client.recv(100).split()[0] == b"one"
        assert not run.order(do="upgrade", python=other(run, version))[-1]["ok"]
        client.settimeout(PATIENCE_S)
        assert client.recv(len(told)) == told
        assert run.answer()[0] == "one"  # it has read what it was given
        run.process.terminate()
        run.process.wait(PATIENCE_S)
        assert client.recv(100) == b""


def test_a_connection_that_comes_back_with_the_version_before_is_given_once(run):
    with run.dial() as client:
        assert client.recv(100).split()[0] == b"one"
        assert not run.order(do="upgrade", python=other(run, "unwell"))[-1]["ok"]
        assert run.order(do="restart")[-1]["ok"]
        client.settimeout(PATIENCE_S)
        told = b""
        while told.count(b";") < 3:
            told += client.recv(100)
        run.process.terminate()
        run.process.wait(PATIENCE_S)
        while more := client.recv(100):
            told += more
    assert told == b"kept by unwell;kept by one;kept by one;"
