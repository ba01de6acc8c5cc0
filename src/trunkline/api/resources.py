"""Every resource of the API: one file each, named here (a test fails for a file that is missing)."""

from trunkline.api import (
    accounts,
    alerts,
    applications,
    available_phone_numbers,
    balance,
    call_events,
    call_notifications,
    call_recordings,
    call_timeline,
    calls,
    incoming_phone_numbers,
    keys,
    lookups_v1,
    lookups_v2,
    media,
    message_feedback,
    messages,
    messaging_services,
    notifications,
    recordings,
    service_alpha_senders,
    service_destination_alpha_senders,
    service_phone_numbers,
    service_short_codes,
    short_codes,
    signing_keys,
    usage_records,
    usage_triggers,
)
from trunkline.api.route import Route

RESOURCES: dict[str, tuple[Route, ...]] = {
    "accounts": accounts.ROUTES,
    "alerts": alerts.ROUTES,
    "applications": applications.ROUTES,
    "available_phone_numbers": available_phone_numbers.ROUTES,
    "balance": balance.ROUTES,
    "call_events": call_events.ROUTES,
    "call_notifications": call_notifications.ROUTES,
    "call_recordings": call_recordings.ROUTES,
    "call_timeline": call_timeline.ROUTES,
    "calls": calls.ROUTES,
    "incoming_phone_numbers": incoming_phone_numbers.ROUTES,
    "keys": keys.ROUTES,
    "lookups_v1": lookups_v1.ROUTES,
    "lookups_v2": lookups_v2.ROUTES,
    "media": media.ROUTES,
    "message_feedback": message_feedback.ROUTES,
    "messages": messages.ROUTES,
    "messaging_services": messaging_services.ROUTES,
    "notifications": notifications.ROUTES,
    "recordings": recordings.ROUTES,
    "service_alpha_senders": service_alpha_senders.ROUTES,
    "service_destination_alpha_senders": service_destination_alpha_senders.ROUTES,
    "service_phone_numbers": service_phone_numbers.ROUTES,
    "service_short_codes": service_short_codes.ROUTES,
    "short_codes": short_codes.ROUTES,
    "signing_keys": signing_keys.ROUTES,
    "usage_records": usage_records.ROUTES,
    "usage_triggers": usage_triggers.ROUTES,
}
"""Module name -> its `ROUTES`. To add a resource: one file, one line here, one test."""


def all_routes() -> tuple[Route, ...]:
    """Every route of every resource."""
    return tuple(route for routes in RESOURCES.values() for route in routes)
