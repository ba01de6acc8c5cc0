"""How one peer writes telephone numbers, and how they are written for it.

Inside, a number is E.164 with its plus. A `NumberPlan` reads what a peer writes (`called_in`, `caller_in`) and writes
what it wants to read (`called_out`, `caller_out`). What is no telephone number stays as it is. Nothing raises.
"""

from typing import Final, Literal

import msgspec

from trunkline.sip.number import MAX_E164_DIGITS, MIN_BARE_E164_DIGITS, MIN_E164_DIGITS, SEPARATORS, e164

Format = Literal["plus", "e164", "national", "international"]
"""`+4930123456`, `4930123456`, `030123456`, `004930123456`."""
MAX_READ_CHARACTERS: Final = 64


class NumberPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of one peer."""

    country: str = ""
    """Calling code of numbers in national form."""
    national: str = "0"
    """What a national number begins with; may be empty."""
    international: str = "00"
    """What an international number without a plus begins with."""
    called: Format = "plus"
    """How called numbers are written."""
    called_strip: int = 0
    """Characters taken off the front of a called number then."""
    called_add: str = ""
    """What is put before it then."""
    caller: Format = "plus"
    """How callers' numbers are written."""
    strip: int = 0
    """Characters taken off the front of a called number that comes in."""
    add: str = ""
    """What is put before it then."""

    # -- out

    def called_out(self, number: str) -> str:
        """The user part of the Request-URI for an E.164 number; one without a plus (emergency numbers) as it is."""
        if number[:1] != "+":
            return number
        text = self._written(number, self.called)
        return self.called_add + text[self.called_strip :] if self.called_strip or self.called_add else text

    def caller_out(self, number: str) -> str:
        """The user part of From and of the asserted identity."""
        return self._written(number, self.caller)

    def _written(self, number: str, form: Format) -> str:
        if form == "plus" or number[:1] != "+":
            return number
        digits = number[1:]
        if form == "e164":
            return digits
        if form == "national" and self.country and digits.startswith(self.country):
            return self.national + digits[len(self.country) :]
        return self.international + digits

    # -- in

    def called_in(self, text: str) -> str:
        """A called number in E.164, "" for what is none."""
        if self.strip or self.add:
            text = self.add + _bare(text)[self.strip :]
        return self.caller_in(text)

    def caller_in(self, text: str) -> str:
        """A caller's number in E.164, "" for what is none."""
        number = _bare(text)
        if number[:1] == "+" or not number.isascii() or not number.isdigit():
            return e164(number) if number else ""
        if self.international and number.startswith(self.international):
            return e164("+" + number[len(self.international) :])
        country = self.country
        if not country:
            return e164(number)
        if self.national and number.startswith(self.national):
            return e164("+" + country + number[len(self.national) :])
        if number.startswith(country) and (self.national or len(number) >= MIN_BARE_E164_DIGITS):
            return e164("+" + number)  # where a trunk prefix marks national numbers, this is none
        if MIN_BARE_E164_DIGITS <= len(number) <= MAX_E164_DIGITS and number[0] != "0":
            return e164("+" + number)
        if len(number) >= MIN_E164_DIGITS - len(country):
            return e164("+" + country + number)
        return ""


def _bare(text: str) -> str:
    """Without parameters (`;npdi;rn=...`) and visual separators."""
    return text[:MAX_READ_CHARACTERS].partition(";")[0].translate(SEPARATORS)
