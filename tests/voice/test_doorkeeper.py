"""Strangers get no answer at all; everybody who may be somebody does."""

import asyncio
from types import SimpleNamespace

import pytest

from trunkline.settings import Trunk
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request
from trunkline.voice.doorkeeper import LOGGED, MAX_TOLD, Doorkeeper, Told, needs_challenge

from ..messaging.world import MovableClock, eventually
from .lines import APP, NODE, OURS, Phone
from .office import HOST, Office

STRANGER = ("127.0.3.1", 5060)
OPEN = Trunk(name="open", username="pbx", password="s3cret", prefixes=())


class Scanner(Phone):
    """Sends requests from nowhere, and hears what comes back."""

    def asks(self, method, uri="sip:100@127.0.0.1", **more):
        heard = []
        self.stack.request(
            method, uri, to=f"<{uri}>", from_="<sip:100@1.1.1.1>", target=("UDP", *NODE),
            on_response=lambda status, response: heard.append((status, response is not None)), **more,
        )  # fmt: skip
        return heard

    async def answer(self, method, uri="sip:100@127.0.0.1", **more):
        """The status; 0: nothing came back."""
        heard = self.asks(method, uri, **more)
        await eventually(lambda: heard)
        status, answered = heard[0]
        return status if answered else 0

    async def calls(self, uri):
        """The status of an INVITE; 0: nothing came back."""
        from trunkline.sip import offer_answer

        self.failure = None
        invite = self.stack.invite(
            uri, from_="<sip:100@1.1.1.1>", target=("UDP", *NODE), sdp=offer_answer.offer(self.local), listener=self
        )
        await eventually(lambda: self.failure or self.dialogs)
        return self.failure if invite.heard or self.failure != 408 else 0


def guarded(lines, office=None, trunks=None):
    office = office or Office(lines)
    trunks = lines.trunk_settings if trunks is None else trunks
    lines.inbound.doorkeeper = Doorkeeper(lines.inbound._sources, lines.inbound.doors, office.domains, trunks)
    lines.stranger = Scanner(lines.net, STRANGER)
    return office


@pytest.mark.parametrize("method", ["OPTIONS", "REGISTER", "FOO"])
async def test_a_stranger_hears_nothing(lines, method):
    guarded(lines)
    assert await lines.stranger.answer(method) == 0
    assert lines.inbound.counters["unanswered"] > 0


async def test_a_strangers_call_hears_nothing_and_the_log_says_what_to_do_once(lines, caplog):
    caplog.set_level("INFO", "trunkline.voice.doorkeeper")
    guarded(lines)
    for _ in range(2):
        assert await lines.stranger.calls(f"sip:{OURS}@127.0.0.1") == 0
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"SIP from 127.0.3.1 is not answered: INVITE 'sip:{OURS}@127.0.0.1'")
    assert "add it to its trunk's addresses" in line


async def test_a_trunk_is_answered(lines):
    guarded(lines)
    lines.web.pages[APP + "in"] = "<Say>hi</Say><Pause length='60'/>"
    scanner = Scanner(lines.net, ("127.0.0.2", 5070))
    assert await scanner.answer("OPTIONS") == 200
    lines.phone.dials(OURS)
    await eventually(lambda: lines.phone.dialogs)


async def test_who_aims_at_a_domain_is_answered_like_for_any_other(lines):
    """A phone's first REGISTER; whether the domain exists is not told."""
    office = guarded(lines)
    await office.open("alice")
    for host in (HOST, "nobody.sip.localhost"):
        assert await lines.stranger.answer("REGISTER", f"sip:{host}") == 401
        assert await lines.stranger.calls(f"sip:100@{host}") == 407
    assert await office.register(office.desk(), "alice") == 200


async def test_who_has_logged_in_is_answered(lines):
    guarded(lines)
    lines.inbound._sources.bans = SimpleNamespace(
        refuses=lambda host: False, spares=lambda host: host == STRANGER[0], offended=lambda *args, **more: None
    )
    assert await lines.stranger.answer("OPTIONS") == 200


async def test_a_login_is_asked_for_where_it_is_all_that_a_trunk_has(make_lines):
    lines = await make_lines(trunks=(OPEN,))
    guarded(lines)
    assert await lines.stranger.calls(f"sip:{OURS}@127.0.0.1") == 401
    assert await lines.stranger.answer("OPTIONS") == 0


@pytest.mark.parametrize(
    ("more", "needed"),
    [({}, True), ({"addresses": ("192.0.2.1",)}, False), ({"tls_names": ("a.b",)}, False), ({"register": True}, False),
     ({"password": "", "username": ""}, False)],
)  # fmt: skip
def test_which_trunks_need_it(more, needed):
    assert needs_challenge(Trunk(**({"name": "t", "username": "u", "password": "p"} | more))) is needed


async def test_calls_that_are_up_and_their_ends_go_on(lines):
    """Requests of a call belong to it, whoever sends them; a CANCEL and what has a tag is left to the stack."""
    guarded(lines)
    lines.web.pages[APP + "in"] = "<Say>hi</Say><Pause length='60'/>"
    lines.phone.dials(OURS)
    await eventually(lambda: lines.phone.dialogs)
    keeper, flow = lines.inbound.doorkeeper, Flow("UDP", STRANGER, NODE)
    for method, to in (("CANCEL", "<sip:a@b>"), ("BYE", "<sip:a@b>;tag=x")):
        request = Request.make(method, "sip:a@b", headers=[("To", to), ("From", "<sip:c@d>;tag=1")])
        assert keeper.answers(request, flow)
    lines.phone.hangs_up()
    await lines.until((await lines.the_call()).sid, "completed")
    await asyncio.sleep(0)


async def test_what_cannot_be_read_is_not_answered(lines):
    guarded(lines)
    request = Request.make("OPTIONS", "sip:[", headers=[("To", '"<sip'), ("From", "<sip:c@d>;tag=1")])
    assert not lines.inbound.doorkeeper.answers(request, Flow("UDP", STRANGER, NODE))


def test_the_log_is_not_flooded(caplog):
    caplog.set_level("INFO", "trunkline.voice.doorkeeper")
    clock = MovableClock()
    told = Told(clock)
    for number in range(3 * LOGGED):
        told.challenged(f"10.0.{number}.1")
    assert len(caplog.records) == LOGGED + 1
    assert "no more are told of" in caplog.records[-1].getMessage()
    clock.offset_ms += 61_000
    told.challenged("10.9.9.9")
    told.challenged("10.0.0.1")
    assert len(caplog.records) == LOGGED + 2
    assert len(told._told) < MAX_TOLD
