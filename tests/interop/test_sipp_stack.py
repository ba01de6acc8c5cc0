"""SIPp against our SIP stack alone: both roles, UDP and TCP, and what goes wrong in between."""

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.interop.conftest import program
from tests.ports import free_port
from trunkline.sip import digest, offer_answer
from trunkline.sip.core import CallListener, DialogListener, InviteListener, StackConfig
from trunkline.sip.transport import SipTransport

SCENARIOS = Path(__file__).parent / "sipp"
CALLS = 20
PATIENCE_S = 40
USER, PASSWORD, REALM = "alice", "secret", "trunkline"
TRANSPORTS = {"UDP": "u1", "TCP": "t1"}


@pytest.fixture(scope="module")
def sipp():
    return program("sipp", "sip-tester")


class Leg(DialogListener, InviteListener, CallListener):
    """One side of a call: it negotiates, and says how it ended."""

    def __init__(self, node):
        self.node = node
        self.local = offer_answer.Local(address="127.0.0.1", port=4000, session_id=next(node.numbers), version=1)
        self.dialog = None
        self.offered = b""
        self.negotiated = []
        self.ended = ""

    def answer(self, offer):
        if not offer:
            self.offered = offer_answer.offer(self.local)
            return self.offered
        self.negotiated.append(offer_answer.answer(offer, self.local))
        return self.negotiated[-1].sdp

    def on_reinvite(self, offer):
        return self.answer(offer)

    def on_ack(self, sdp):
        if self.offered:
            self.negotiated.append(offer_answer.conclude(self.offered, sdp, self.local))
            self.offered = b""
        self.node.acked(self)

    def on_answer(self, dialog, response, sdp):
        self.dialog, dialog.listener = dialog, self
        if self.offered:
            self.negotiated.append(offer_answer.conclude(self.offered, sdp, self.local))
        else:
            dialog.ack(self.answer(sdp))
        self.offered = b""
        self.node.acked(self)

    def on_failure(self, status, reason, response):
        self.end(str(status))

    def on_progress(self, response, sdp):
        if self.node.cancels:
            self.invite.cancel()

    def on_cancel(self, reason):
        self.end(f"cancelled {reason}")

    def on_bye(self, request):
        self.end("bye")

    def on_ended(self, reason):
        self.end(reason)

    def end(self, how):
        assert not self.ended
        self.ended = how
        self.node.changed.set()

    def hang_up(self):
        self.dialog.bye()
        self.end("hung up")


class Node:
    """Our stack on the loop. `hang_up_after_s`: when our side ends each call, None: never."""

    def __init__(self):
        self.transport = SipTransport(StackConfig(), self)
        self.numbers = itertools.count(1)
        self.legs = []
        self.changed = asyncio.Event()
        self.hang_up_after_s = None
        self.rings_only = False
        self.cancels = False
        self.guarded = False

    def on_invite(self, invite):
        if self.guarded and not self.knows(invite.request):
            invite.challenge(digest.challenge(REALM, "n1", "MD5"))
            return
        leg = Leg(self)
        invite.listener = leg
        self.legs.append(leg)
        invite.ring()
        if not self.rings_only:
            leg.dialog = invite.accept(leg.answer(invite.offer))
            leg.dialog.listener = leg

    def knows(self, request):
        value = request.headers.get("Authorization")
        secrets = {"MD5": digest.ha1("MD5", USER, REALM, PASSWORD)}
        return bool(value) and digest.verify(digest.parse_credentials(value), secrets, "INVITE", request.body)

    def on_request(self, request, flow):
        return None

    def permitted(self, request, flow):
        return True

    def acked(self, leg):
        if self.hang_up_after_s is not None and not leg.ended:
            asyncio.get_running_loop().call_later(self.hang_up_after_s, lambda: leg.ended or leg.hang_up())

    def call(self, port, transport, late=False):
        leg = Leg(self)
        leg.offered = b"" if late else offer_answer.offer(leg.local)
        leg.invite = self.transport.stack.invite(
            f"sip:bob@127.0.0.1:{port}", from_="<sip:us@127.0.0.1>", target=(transport, "127.0.0.1", port),
            sdp=leg.offered, listener=leg, credentials=(USER, PASSWORD),
        )  # fmt: skip
        self.legs.append(leg)

    async def ends(self, count=CALLS):
        """How each of so many calls ended."""
        async with asyncio.timeout(PATIENCE_S):
            while len([leg for leg in self.legs if leg.ended]) < count:
                self.changed.clear()
                await self.changed.wait()
        return {leg.ended for leg in self.legs}


@pytest.fixture
async def node():
    node = Node()
    await node.transport.start()
    yield node
    stack = node.transport.stack
    assert "errors" not in stack.metrics
    async with asyncio.timeout(PATIENCE_S):
        while stack.dialogs:
            await asyncio.sleep(0.02)
    await node.transport.close()


class Sipp:
    """A run of SIPp; `succeeds` waits for its end."""

    def __init__(self, path, folder):
        self.path, self.folder = path, folder

    async def start(self, scenario, *options, transport="UDP"):
        self.errors = self.folder / "errors.log"
        settings = {
            "-sf": SCENARIOS / f"{scenario}.xml", "-t": TRANSPORTS[transport], "-i": "127.0.0.1", "-m": CALLS, "-r": 50,
            "-timeout": f"{PATIENCE_S - 5}s", "-error_file": self.errors,
        }  # fmt: skip
        flat = [str(part) for pair in settings.items() for part in pair]
        self.process = await asyncio.create_subprocess_exec(
            self.path, *flat, "-nostdin", "-timeout_error", "-trace_err", *options,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, cwd=self.folder,
        )  # fmt: skip
        return self

    async def succeeds(self):
        try:
            _, errors = await asyncio.wait_for(self.process.communicate(), PATIENCE_S)
        except TimeoutError:
            self.process.kill()
            raise
        log = self.errors.read_text(errors="replace")[:3000] if self.errors.exists() else ""
        assert self.process.returncode == 0, f"{errors.decode()[-500:]}\n{log}"


@pytest.fixture
async def calls_us(sipp, node, tmp_path):
    """Starts SIPp as the caller of our stack."""

    async def start(scenario, *options, transport="UDP"):
        to = f"127.0.0.1:{node.transport.port}"
        return await Sipp(sipp, tmp_path).start(scenario, *options, to, transport=transport)

    return start


@pytest.fixture
async def called(sipp, node, tmp_path):
    """Starts SIPp as the callee, and calls it from our stack."""

    async def start(scenario, *options, transport="UDP", late=False):
        port = free_port()
        run = await Sipp(sipp, tmp_path).start(scenario, "-p", str(port), *options, transport=transport)
        await listens(port, transport)
        for _ in range(CALLS):
            node.call(port, transport, late)
        return run

    return start


async def listens(port, transport):
    """Wait for a listening socket, without touching it: SIPp takes a connection that closes again for a failure."""
    table, state = Path(f"/proc/net/{transport.lower()}"), {"TCP": "0A", "UDP": "07"}[transport]
    async with asyncio.timeout(PATIENCE_S):
        while True:
            sockets = [line.split() for line in table.read_text().splitlines()[1:]]
            if any(each[1].endswith(f":{port:04X}") and each[3] == state for each in sockets):
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("scenario", "directions"), [
    ("uac", ["sendrecv"]),
    ("uac_hold", ["sendrecv", "recvonly", "sendrecv"]),
    ("uac_late_offer", ["sendrecv"]),
    ("uac_auth", ["sendrecv"]),
])  # fmt: skip
async def test_it_calls_us_and_hangs_up(calls_us, node, scenario, directions, transport):
    node.guarded = scenario == "uac_auth"
    run = await calls_us(scenario, transport=transport)
    await run.succeeds()
    assert await node.ends() == {"bye"}
    assert [[each.direction for each in leg.negotiated] for leg in node.legs] == [directions] * CALLS
    assert {each.codec for leg in node.legs for each in leg.negotiated} == {"PCMU"}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_calls_us_and_we_hang_up(calls_us, node, transport):
    node.hang_up_after_s = 0.05
    run = await calls_us("uac_called_hangs_up", transport=transport)
    await run.succeeds()
    assert await node.ends() == {"hung up"}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_it_calls_us_and_cancels(calls_us, node, transport):
    node.rings_only = True
    run = await calls_us("uac_cancel", transport=transport)
    await run.succeeds()
    assert await node.ends() == {"cancelled Q.850;cause=16"}


async def test_it_calls_us_over_a_network_that_loses_packets(calls_us, node):
    run = await calls_us("uac_lossy", "-lost", "10")
    await run.succeeds()
    assert await node.ends() == {"bye"}
    metrics = node.transport.stack.metrics
    assert metrics.get("retransmissions_received", 0) + metrics.get("retransmissions", 0) > 0


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(("scenario", "directions"), [
    ("uas_hangs_up", ["sendrecv"]),
    ("uas_hold", ["sendrecv", "recvonly", "sendrecv"]),
])  # fmt: skip
async def test_we_call_it_and_it_hangs_up(called, node, scenario, directions, transport):
    run = await called(scenario, transport=transport)
    assert await node.ends() == {"bye"}
    await run.succeeds()
    assert [[each.direction for each in leg.negotiated] for leg in node.legs] == [directions] * CALLS


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("scenario", ["uas", "uas_auth", "uas_late_offer"])
async def test_we_call_it_and_hang_up(called, node, scenario, transport):
    node.hang_up_after_s = 0.05
    run = await called(scenario, transport=transport, late=scenario == "uas_late_offer")
    assert await node.ends() == {"hung up"}
    await run.succeeds()
    assert all(len(leg.negotiated) == 1 for leg in node.legs)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_we_call_it_and_cancel(called, node, transport):
    node.cancels = True
    run = await called("uas_cancel", transport=transport)
    assert await node.ends() == {"487"}
    await run.succeeds()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_we_call_it_and_it_is_busy(called, node, transport):
    run = await called("uas_busy", transport=transport)
    assert await node.ends() == {"486"}
    await run.succeeds()


async def test_we_call_it_over_a_network_that_loses_packets(called, node):
    node.hang_up_after_s = 0.2
    run = await called("uas_lossy")
    assert await node.ends() == {"hung up"}
    await run.succeeds()
    assert node.transport.stack.metrics["retransmissions"] > 0
