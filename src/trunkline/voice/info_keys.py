"""Keys that come by INFO: application/dtmf-relay and application/dtmf, as phones and gateways send them."""

from typing import Final

MAX_INFO_BYTES: Final = 256
"""Of an INFO's body that is read."""
DIGITS: Final = frozenset("0123456789*#ABCD")


def info_digit(content_type: str, body: bytes) -> str:
    """The key of an INFO, empty when it has none."""
    text = body[:MAX_INFO_BYTES].decode("latin-1")
    if content_type == "application/dtmf-relay":
        for line in text.splitlines():
            name, _, value = line.partition("=")
            if name.strip().lower() == "signal":
                text = value
                break
        else:
            return ""
    elif content_type != "application/dtmf":
        return ""
    digit = text.strip().upper()
    digit = {"10": "*", "11": "#"}.get(digit, digit)
    return digit if digit in DIGITS else ""
