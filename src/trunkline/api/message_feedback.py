"""Feedback on a message: whether the recipient did what it was sent for.

Source: spec `api.v2010.account.message.message_feedback`.
"""

from typing import Any

from trunkline.api import dates, messages, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.numbers import MessageFeedback

OUTCOMES = ("confirmed", "unconfirmed")


def render(feedback: MessageFeedback) -> dict[str, Any]:
    """The resource as the API shows it."""
    return {
        "account_sid": feedback.account_sid,
        "date_created": dates.rfc2822(feedback.created_ms),
        "date_updated": dates.rfc2822(feedback.updated_ms),
        "message_sid": feedback.sid,
        "outcome": feedback.outcome,
        "uri": f"/2010-04-01/Accounts/{feedback.account_sid}/Messages/{feedback.sid}/Feedback.json",
    }


async def create(request: Request, app: Services) -> Response:
    """POST Messages/{MessageSid}/Feedback: the last outcome counts; `confirmed` where none is given."""
    message = await messages.find(request, app)
    outcome = request.enum("Outcome", OUTCOMES) or "confirmed"
    feedback = await app.database.get(MessageFeedback, message.sid)
    if feedback is None:
        feedback = MessageFeedback(sid=message.sid, account_sid=message.account_sid)
    feedback.outcome = outcome
    await app.database.put(feedback)
    return respond.resource(request.format, render(feedback), "Feedback")


ROUTES = (Route("api", "POST", "/2010-04-01/Accounts/{AccountSid}/Messages/{MessageSid}/Feedback", create),)
