"""The error catalogue and the REST error body."""

import pytest

from trunkline.model import errors
from trunkline.model.errors import ApiError


def test_body_has_twilio_keys_in_order() -> None:
    error = ApiError.not_found("/2010-04-01/Accounts/AC0/Messages/SM0.json")
    assert list(error.body()) == ["code", "message", "more_info", "status"]
    assert error.body() == {
        "code": 20404,
        "message": "The requested resource /2010-04-01/Accounts/AC0/Messages/SM0.json was not found",
        "more_info": "https://www.twilio.com/docs/errors/20404",
        "status": 404,
    }


def test_unauthorized_carries_detail_and_challenge() -> None:
    error = ApiError.unauthorized()
    assert error.body() == {
        "code": 20003,
        "detail": "Your AccountSid or AuthToken was incorrect.",
        "message": "Authenticate",
        "more_info": "https://www.twilio.com/docs/errors/20003",
        "status": 401,
    }
    assert ("WWW-Authenticate", 'Basic realm="Twilio API"') in error.headers


@pytest.mark.parametrize(
    ("code", "fields", "status", "message"),
    [
        (21211, {"to": "+1555"}, 400, "The 'To' number +1555 is not a valid phone number."),
        (
            21606,
            {"from_": "+15550000001"},
            400,
            "The 'From' phone number +15550000001 is not a valid, message-capable Twilio phone number for this "
            "destination.",
        ),
        (21602, {}, 400, "Message body is required."),
        (21617, {}, 400, "The concatenated message body exceeds the 1600 character limit"),
        (20429, {}, 429, "Too Many Requests"),
        (20004, {}, 405, "Method not allowed"),
        (
            21408,
            {"to": "+4915112345678"},
            400,
            "Permission to send an SMS has not been enabled for the region indicated by the 'To' number: "
            "+4915112345678.",
        ),
    ],
)
def test_usual_status_and_text(code: int, fields: dict[str, str], status: int, message: str) -> None:
    error = ApiError.of(code, **fields)
    assert (error.status, error.code, error.message, str(error)) == (status, code, message, message)


def test_code_without_template_uses_the_dictionary() -> None:
    error = ApiError.of(21704)
    assert (error.status, error.message) == (400, "The Messaging Service contains no phone numbers")


def test_missing_field_falls_back_to_the_dictionary() -> None:
    assert ApiError.of(21211).message == "Invalid 'To' Phone Number"


def test_braces_and_length_of_a_quoted_value_are_harmless() -> None:
    assert ApiError.of(21211, to="{from_.__class__}").message.startswith("The 'To' number {from_.__class__} is")
    assert len(ApiError.of(21211, to="9" * 100_000).message) < 400


def test_overrides() -> None:
    error = ApiError.of(20003, status=403, message="no", details={"a": 1}, headers=(("Retry-After", "1"),))
    assert (error.status, error.message, error.headers) == (403, "no", (("Retry-After", "1"),))
    assert error.body()["details"] == {"a": 1}


def test_null_code_is_allowed() -> None:
    assert ApiError(501, None, "x").body() == {
        "code": None,
        "message": "x",
        "more_info": "https://www.twilio.com/docs/errors",
        "status": 501,
    }


@pytest.mark.parametrize("code", [31000, 32014, 32015, 32018, 32022])
def test_codes_of_calls_are_in_the_dictionary(code: int) -> None:
    assert errors.describe(code).message != "Unknown error"
    assert ApiError.of(code).message == errors.describe(code).message


def test_describe() -> None:
    assert errors.describe(30003) == (30003, "Unreachable destination handset", "error")
    assert errors.describe(12200).log_level == "warning"
    assert errors.describe(99).message == "Unknown error"


def test_every_template_formats_with_its_own_fields() -> None:
    import string

    for code, (status, template) in errors.TEMPLATES.items():
        fields = {name for _, name, _, _ in string.Formatter().parse(template) if name}
        assert 400 <= status < 600
        message = ApiError.of(code, **dict.fromkeys(fields, "value")).message
        assert "{" not in message
        assert not fields or "value" in message
