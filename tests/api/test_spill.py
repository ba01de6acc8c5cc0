"""What a database took with it unsent, or a partition that went to another node did not take, is made anew, under
another SID, in one that takes writes: clients see 201."""

from types import SimpleNamespace

import orjson
import pytest

from trunkline.api import calls, messages
from trunkline.api.anew import TRIES
from trunkline.api.idempotency import Claim
from trunkline.api.respond import Format
from trunkline.model.call import Call
from trunkline.model.message import Direction, Message
from trunkline.model.sid import new_sid
from trunkline.storage.queue import Replay
from trunkline.storage.unavailable import NotOwned, Spill, StoreUnavailable

AC = "AC" + "a" * 32
REQUEST = SimpleNamespace(idempotency=None, format=Format.JSON, account_sid=AC)


class Queue:
    """Takes what `make` makes; the first so many times its database is gone."""

    def __init__(self, make, *outcomes):
        self.make, self.outcomes, self.made = make, list(outcomes), []

    def take(self, new, complete):
        record = self.make()
        self.made.append(record.sid)
        complete(record)
        return record, self.written(self.outcomes.pop(0))

    async def written(self, outcome):
        if outcome is not None:
            raise outcome


def message():
    return Message(
        sid=new_sid("SM"), account_sid=AC, direction=Direction.OUTBOUND_API, from_="+1", to="+2", body="x",
        created_ms=1, updated_ms=1,
    )  # fmt: skip


def call():
    return Call(
        sid=new_sid("CA"), account_sid=AC, direction="outbound-api", from_="+1", to="+2", created_ms=1, updated_ms=1
    )


def accepted(kind, queue, request=REQUEST):
    app = SimpleNamespace(outbound=SimpleNamespace(accept=queue.take), clock=SimpleNamespace(now_ms=lambda: 1))
    if kind == "message":
        return messages._accept(request, app, None)
    return calls._accept(request, SimpleNamespace(create=queue.take), app, None)


@pytest.mark.parametrize("error", [Spill("gone"), NotOwned("another node has it")])
@pytest.mark.parametrize(("kind", "make"), [("message", message), ("call", call)])
async def test_it_is_made_anew(kind, make, error):
    queue = Queue(make, error, error, None)
    response = await accepted(kind, queue)
    *others, last = queue.made
    assert (response.status, orjson.loads(response.body)["sid"]) == (201, last)
    assert len({last, *others}) == 3


@pytest.mark.parametrize(("kind", "make"), [("message", message), ("call", call)])
@pytest.mark.parametrize("outcomes", [(Spill("gone"),) * (TRIES + 1), (StoreUnavailable("all are gone"),)])
async def test_not_for_ever(kind, make, outcomes):
    queue = Queue(make, *outcomes)
    with pytest.raises(StoreUnavailable):
        await accepted(kind, queue)
    assert len(queue.made) == len(outcomes)


@pytest.mark.parametrize(("kind", "make"), [("message", message), ("call", call)])
async def test_what_has_a_key_is_made_at_its_home_alone(kind, make):
    claim = Claim(Replay(account=AC, method="POST", path="/p", key="k", fingerprint=b"f", expires_ms=1), 1)
    queue = Queue(make, NotOwned("another node has it"), None)
    with pytest.raises(NotOwned):
        await accepted(kind, queue, SimpleNamespace(idempotency=claim, format=Format.JSON, account_sid=AC))
    assert len(queue.made) == 1
