"""Keys in an INFO."""

import pytest

from trunkline.voice.info_keys import info_digit


@pytest.mark.parametrize(
    ("content_type", "body", "digit"),
    [
        ("application/dtmf-relay", b"Signal=5\r\nDuration=160\r\n", "5"),
        ("application/dtmf-relay", b"Duration=160\nSignal= # \n", "#"),
        ("application/dtmf-relay", b"signal=11", "#"),
        ("application/dtmf-relay", b"Signal=a", "A"),
        ("application/dtmf-relay", b"Duration=160", ""),
        ("application/dtmf", b"10", "*"),
        ("application/dtmf", b"7\r\n", "7"),
        ("application/dtmf", b"77", ""),
        ("application/dtmf", b"\xff" * 10_000, ""),
        ("text/plain", b"7", ""),
    ],
)
def test_keys_in_an_info(content_type: str, body: bytes, digit: str) -> None:
    assert info_digit(content_type, body) == digit
