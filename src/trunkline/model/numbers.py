"""Numbers, applications, messaging services and their senders, as the `Database` keeps them."""

from typing import ClassVar

from trunkline.model.record import Record


class PhoneNumber(Record, kw_only=True):
    """A number of the operator's inventory.

    `account_sid` is empty while it is available (AvailablePhoneNumbers); buying it sets the account. `sid` stays.
    """

    TABLE: ClassVar[str] = "phone_numbers"

    phone_number: str
    """E.164, unique."""
    friendly_name: str = ""
    country: str = ""
    """ISO 3166-1 alpha-2."""
    type: str = "local"
    """`local`, `mobile`, `tollfree`, `national`, `voip`, `shared-cost`, `machine-to-machine`."""
    sms_enabled: bool = True
    mms_enabled: bool = False
    voice_enabled: bool = True
    fax_enabled: bool = False
    locality: str = ""
    region: str = ""
    postal_code: str = ""
    rate_center: str = ""
    lata: str = ""
    latitude: float | None = None
    longitude: float | None = None
    beta: bool = False
    address_requirements: str = "none"
    monthly_price: str = "0"
    connector: str = ""
    """The connector that messages from this number must leave by; empty: routing decides."""
    messages_per_second: float = 0
    """0: the default for its kind."""
    sms_url: str = ""
    sms_method: str = "POST"
    sms_fallback_url: str = ""
    sms_fallback_method: str = "POST"
    sms_application_sid: str = ""
    voice_url: str = ""
    voice_method: str = "POST"
    voice_fallback_url: str = ""
    voice_fallback_method: str = "POST"
    voice_application_sid: str = ""
    voice_caller_id_lookup: bool = False
    voice_receive_mode: str = "voice"
    status_callback: str = ""
    status_callback_method: str = "POST"
    trunk_sid: str = ""
    address_sid: str = ""
    identity_sid: str = ""
    bundle_sid: str = ""
    emergency_status: str = "Inactive"
    emergency_address_sid: str = ""
    bought_ms: int = 0
    """When the account bought it (its `date_created` for the API); 0 while available."""


class ShortCode(Record, kw_only=True):
    """A short code assigned to an account."""

    TABLE: ClassVar[str] = "short_codes"

    short_code: str
    friendly_name: str = ""
    country: str = ""
    connector: str = ""
    messages_per_second: float = 0
    sms_url: str = ""
    sms_method: str = "POST"
    sms_fallback_url: str = ""
    sms_fallback_method: str = "POST"


class Application(Record, kw_only=True):
    """A TwiML application (spec `api.v2010.account.application`)."""

    TABLE: ClassVar[str] = "applications"

    friendly_name: str = ""
    api_version: str = "2010-04-01"
    voice_url: str = ""
    voice_method: str = "POST"
    voice_fallback_url: str = ""
    voice_fallback_method: str = "POST"
    voice_caller_id_lookup: bool = False
    status_callback: str = ""
    status_callback_method: str = "POST"
    sms_url: str = ""
    sms_method: str = "POST"
    sms_fallback_url: str = ""
    sms_fallback_method: str = "POST"
    sms_status_callback: str = ""
    message_status_callback: str = ""
    public_application_connect_enabled: bool = False


class MessagingService(Record, kw_only=True):
    """A Messaging Service (spec `messaging.v1.service`)."""

    TABLE: ClassVar[str] = "messaging_services"

    friendly_name: str = ""
    inbound_request_url: str = ""
    inbound_method: str = "POST"
    fallback_url: str = ""
    fallback_method: str = "POST"
    status_callback: str = ""
    sticky_sender: bool = True
    mms_converter: bool = True
    smart_encoding: bool = True
    scan_message_content: str = "inherit"
    fallback_to_long_code: bool = True
    area_code_geomatch: bool = True
    validity_period: int = 36000
    """Seconds, 1..36000."""
    synchronous_validation: bool = False
    usecase: str = "undeclared"
    use_inbound_webhook_on_number: bool = False


class ServiceSender(Record, kw_only=True):
    """A sender in a service's pool. `sid` is the number's (PN), short code's (SC) or alpha sender's (AI) own SID."""

    TABLE: ClassVar[str] = "service_senders"

    service_sid: str
    kind: str
    """`phone_number`, `short_code` or `alpha`."""
    address: str
    """The E.164 number, the short code or the alphanumeric sender id."""
    country: str = ""
    iso_country: str = ""
    """For destination-bound alpha senders: only for this country."""


class StickySender(Record, kw_only=True):
    """Which sender of a service a recipient knows. `sid` is `service_sid + ":" + recipient`."""

    TABLE: ClassVar[str] = "sticky_senders"

    sender: str


class OptOut(Record, kw_only=True):
    """A recipient who said STOP. `sid` is `scope + ":" + recipient`; the scope is a service SID or `account/sender`."""

    TABLE: ClassVar[str] = "opt_outs"

    scope: str
    recipient: str


class ScheduledMessage(Record, kw_only=True):
    """A message that waits for its SendAt outside the in-flight store; `sid` is the message's own."""

    TABLE: ClassVar[str] = "scheduled_messages"

    send_at_ms: int
    record: str
    """The Message record as JSON."""
    status: str = "scheduled"
    recipient: str = ""
    sender: str = ""
    """Empty while a service has not chosen it."""


class Alert(Record, kw_only=True):
    """A Monitor alert (spec `monitor.v1.alert`)."""

    TABLE: ClassVar[str] = "alerts"

    error_code: str
    log_level: str = "error"
    alert_text: str = ""
    resource_sid: str = ""
    service_sid: str = ""
    request_method: str = ""
    request_url: str = ""
    request_variables: str = ""
    request_headers: str = ""
    response_body: str = ""
    response_headers: str = ""


class Media(Record, kw_only=True):
    """A stored media file of a message; the bytes lie in the blob store under `sid`."""

    TABLE: ClassVar[str] = "media"

    message_sid: str
    content_type: str
    bytes: int = 0
    source_url: str = ""


class UsageTrigger(Record, kw_only=True):
    """Calls a URL when usage passes a value (spec `api.v2010.account.usage.usage_trigger`)."""

    TABLE: ClassVar[str] = "usage_triggers"

    friendly_name: str = ""
    callback_url: str
    callback_method: str = "POST"
    trigger_value: str
    trigger_by: str = "usage"
    usage_category: str
    recurring: str = ""
    current_value: str = "0"
    fired_ms: int = 0


class MessageFeedback(Record, kw_only=True):
    """Whether the recipient acted on a message; `sid` is the message's."""

    TABLE: ClassVar[str] = "message_feedback"

    outcome: str = "unconfirmed"
