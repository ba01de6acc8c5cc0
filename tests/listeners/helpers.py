"""What the SMPP server's tests say often."""

from tests.messaging.world import AC
from trunkline.messaging.connectors.base import Receipt
from trunkline.smpp import constants as c
from trunkline.sms import udh


def part(number, total, text, reference=7, width=8):
    """Fields of a submit_sm with one part of a long message."""
    return {"esm_class": c.ESM_UDHI, "message": udh.concat_header(reference, total, number, width) + text}


def carrier(node):
    return node.world.carriers["carrier"]


async def delivered(node, message, state="delivered", error=""):
    """The carrier's receipts for every segment."""
    stored = await node.world.until(message, "sent")
    for segment in stored.segments:
        await node.world.receipts.apply(
            Receipt(connector="carrier", carrier_id=segment.id, state=state, error=error, done_date="2401021504")
        )


async def no_parts(node):
    return await node.world.queue.stale_parts(node.world.clock.now_ms() + 10_000_000, 10) == []


async def message_of(node, sid):
    return await node.world.reader.get(AC, sid)
