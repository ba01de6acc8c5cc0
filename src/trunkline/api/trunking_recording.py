"""Whether a trunk's calls are recorded. Source: spec `trunking.v1.trunk.recording`."""

from trunkline.api import records, respond, trunking_trunks
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.sip_trunk import RECORDING_MODES, TRIMS


async def fetch(request: Request, app: Services) -> Response:
    """GET Recording."""
    return respond.json(trunking_trunks.recording_of(await trunking_trunks.find(request, app)))


async def update(request: Request, app: Services) -> Response:
    """POST Recording: Mode, Trim; from the next call on."""
    trunk = await trunking_trunks.find(request, app)
    asked = {
        "recording_mode": request.enum("Mode", RECORDING_MODES, code=trunking_trunks.INVALID),
        "recording_trim": request.enum("Trim", TRIMS, code=trunking_trunks.INVALID),
    }
    sent = {field: value for field, value in asked.items() if value is not None}
    trunk = await records.change(request, app.database, trunk, lambda one: records.assign(one, sent))
    return respond.json(trunking_trunks.recording_of(trunk))


_PATH = "/v1/Trunks/{TrunkSid}/Recording"
ROUTES = (
    Route("trunking", "GET", _PATH, fetch),
    Route("trunking", "POST", _PATH, update),
)
