"""Why a call is not placed."""

from typing import NamedTuple


class Denial(NamedTuple):
    """Why a call is not placed: Twilio's codes for the API, for `<Dial>` and for customers' trunks."""

    why: str
    api: int
    dial: int
    trunk: int


def not_permitted(why: str) -> Denial:
    """By dialing permissions."""
    return Denial(why, 21215, 13227, 32205)


def blocked(why: str) -> Denial:
    """By the operator, whatever is permitted."""
    return Denial(why, 21216, 13225, 32205)
