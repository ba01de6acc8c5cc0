"""REGISTER, answered without a transaction (RFC 3261 section 8.2.7).

A REGISTER that comes again is told from a new one by its Call-ID and CSeq, in the registrar, and gets the same answer:
so nothing of it is kept here, and a flood of them leaves nothing behind.
"""

import logging
from typing import Final

from trunkline.sip.core import Answer, Core
from trunkline.sip.flow import Flow
from trunkline.sip.headers import split_values
from trunkline.sip.message import MalformedMessage, Request
from trunkline.sip.registrar import EXTENSIONS

OTHERWISE: Final[Answer] = (500, [])

logger = logging.getLogger(__name__)


def register_answer(core: Core, request: Request, flow: Flow, default: Answer) -> Answer:
    """What to answer; a fault of the core's is 500. Never raises."""
    try:
        if "Require" in request.headers:
            wanted = split_values(request.headers.all("Require"))
            lacking = [tag for tag in wanted if tag.lower() not in EXTENSIONS]
            if lacking:
                return 420, [("Unsupported", ", ".join(lacking))]
        return core.on_request(request, flow) or default
    except MalformedMessage as malformed:
        return malformed.status, []
    except Exception:
        logger.exception("REGISTER failed")
        return OTHERWISE
