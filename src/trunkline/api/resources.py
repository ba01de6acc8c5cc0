"""Every resource of the API: one file each, named here (a test fails for a file that is missing)."""

from trunkline.api import (
    alerts,
    lookups_v1,
    lookups_v2,
    media,
    message_feedback,
    messages,
    messaging_services,
    service_alpha_senders,
    service_destination_alpha_senders,
    service_phone_numbers,
    service_short_codes,
)
from trunkline.api.route import Route

RESOURCES: dict[str, tuple[Route, ...]] = {
    "alerts": alerts.ROUTES,
    "lookups_v1": lookups_v1.ROUTES,
    "lookups_v2": lookups_v2.ROUTES,
    "media": media.ROUTES,
    "message_feedback": message_feedback.ROUTES,
    "messages": messages.ROUTES,
    "messaging_services": messaging_services.ROUTES,
    "service_alpha_senders": service_alpha_senders.ROUTES,
    "service_destination_alpha_senders": service_destination_alpha_senders.ROUTES,
    "service_phone_numbers": service_phone_numbers.ROUTES,
    "service_short_codes": service_short_codes.ROUTES,
}
"""Module name -> its `ROUTES`. To add a resource: one file, one line here, one test."""


def all_routes() -> tuple[Route, ...]:
    """Every route of every resource."""
    return tuple(route for routes in RESOURCES.values() for route in routes)
