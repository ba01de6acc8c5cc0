"""Stacks joined by a network in memory: a virtual clock, and a link that may lose, repeat, delay and reorder."""

import itertools
from heapq import heappop, heappush

from trunkline.sip.core import CallListener, DialogListener, InviteListener, StackConfig
from trunkline.sip.errors import NotAcceptable
from trunkline.sip.flow import Flow, bracketed
from trunkline.sip.headers import Headers
from trunkline.sip.message import MalformedMessage, Request, Response, parse
from trunkline.sip.stack import Stack

OFFER = b"v=0 offer"
ANSWER = b"v=0 answer"


class Network:
    """`fate(data, source, destination)` gives the delays after which copies arrive; an empty list loses it."""

    def __init__(self):
        self.now_s = 1000.0
        self.queue = []
        self.order = itertools.count()
        self.stacks = {}
        self.log = []
        self.fate = lambda data, source, destination: [0.01]

    def add(self, address, stack):
        self.stacks[address] = stack

    def send(self, data, flow):
        self.log.append((flow.local, flow.remote, readable(data)))
        back = Flow(flow.transport, flow.local, flow.remote, flow.id)
        for delay in self.fate(data, flow.local, flow.remote):
            heappush(self.queue, (self.now_s + delay, next(self.order), data, back))
        return True

    def run(self, seconds=0.0, until=None):
        """Let that time pass (or until a condition holds), with all messages and timers in their order."""
        end = self.now_s + seconds
        while until is None or not until():
            due = [stack.timers.due() for stack in self.stacks.values()]
            next_at = min([at for at in due if at is not None] + [entry[0] for entry in self.queue[:1]], default=None)
            if next_at is None or next_at > end:
                self.now_s = max(self.now_s, end)
                return
            self.now_s = max(self.now_s, next_at)
            if self.queue and self.queue[0][0] <= self.now_s:
                _, _, data, flow = heappop(self.queue)
                if flow.local in self.stacks:
                    self.stacks[flow.local].receive(data, flow)
            for stack in self.stacks.values():
                stack.tick()

    def sent(self, source=None):
        """First lines of what was sent: methods and statuses."""
        return [
            message.method if isinstance(message, Request) else message.status
            for local, _, message in self.log
            if source is None or local == source
        ]

    def of(self, kind, source=None):
        """Messages sent of a method or status."""
        return [
            message
            for local, _, message in self.log
            if source in (None, local) and kind in (getattr(message, "method", ""), getattr(message, "status", 0))
        ]


def readable(data):
    """A message that we sent; the answer to one that lacks headers lacks them too."""
    try:
        return parse(data)
    except MalformedMessage:
        return Response(int(data.split()[1]), "", Headers())


class Leg(DialogListener):
    """Records what a dialog's listener hears."""

    def __init__(self, phone):
        self.phone = phone
        self.heard = []
        self.answer = ANSWER
        self.info = []

    def on_bye(self, request):
        self.heard.append("bye")

    def on_ended(self, reason):
        self.heard.append(reason)

    def on_reinvite(self, offer):
        self.heard.append(("reinvite", offer))
        if self.answer is None:
            raise NotAcceptable("no")
        return self.answer

    def on_ack(self, sdp):
        self.heard.append(("ack", sdp))

    def on_info(self, request):
        self.info.append(request.body)


class Caller(CallListener):
    """Records what the listener of a call hears."""

    def __init__(self, phone):
        self.phone = phone
        self.sent = []
        self.progress = []
        self.dialog = None
        self.sdp = None
        self.failure = None
        self.leg = Leg(phone)

    def on_sent(self, invite, flow):
        self.sent.append((invite, flow))

    def on_progress(self, response, sdp):
        self.progress.append((response.status, response.to_tag, sdp))

    def on_answer(self, dialog, response, sdp):
        assert self.dialog is None
        assert self.failure is None
        self.dialog, self.sdp = dialog, sdp
        dialog.listener = self.leg

    def on_failure(self, status, reason, response):
        assert self.dialog is None
        assert self.failure is None
        self.failure = (status, reason)


class Phone(InviteListener):
    """A stack with a core that does as told: `on_call(invite)` decides."""

    def __init__(self, network, host, port=5060, transport="UDP", **config):
        self.network = network
        self.address = (host, port)
        self.transport = transport
        numbers = itertools.count(1)
        self.stack = Stack(
            StackConfig(host=host, port=port, user_agent="", **config),
            network.send,
            lambda: network.now_s,
            lambda: f"{port:04x}{next(numbers):08x}",
            self,
        )
        self.stack.local = lambda transport, host: self.address
        network.add(self.address, self.stack)
        self.invites = []
        self.dialogs = []
        self.legs = []
        self.cancelled = []
        self.requests = []
        self.permits = True
        self.on_call = self.answer

    def answer(self, invite):
        self.accept(invite)

    def accept(self, invite, sdp=ANSWER):
        dialog = invite.accept(sdp)
        dialog.listener = Leg(self)
        self.dialogs.append(dialog)
        self.legs.append(dialog.listener)
        return dialog

    def on_invite(self, invite):
        invite.listener = self
        self.invites.append(invite)
        self.on_call(invite)

    def on_request(self, request, flow):
        self.requests.append(request)

    def permitted(self, request, flow):
        return self.permits

    def on_cancel(self, reason):
        self.cancelled.append(reason)

    def call(self, other, sdp=OFFER, **options):
        caller = Caller(self)
        host, port = other.address
        options.setdefault("target", (self.transport, host, port))
        caller.invite = self.stack.invite(
            f"sip:bob@{bracketed(host)}:{port}", from_="<sip:alice@a.example>", sdp=sdp, listener=caller, **options
        )
        return caller

    @property
    def quiet(self):
        """Whether nothing is left: no transaction, dialog, call or timer."""
        stack = self.stack
        return not (stack.transactions or stack.dialogs or stack.calls or len(stack.timers) or stack._merged)


def pair(**config):
    """Two phones and their network."""
    network = Network()
    return network, Phone(network, "10.0.0.1", **config), Phone(network, "10.0.0.2", 5062, **config)


def flow_of(phone, host="10.0.0.9", port=5060):
    """A flow by which a stranger reaches a phone."""
    return Flow("UDP", (host, port), phone.address, 0)
