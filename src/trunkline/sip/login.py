"""Answering digest challenges as a client (RFC 3261 section 22.2 and 22.3, RFC 8760)."""

from typing import Final

from trunkline.sip import digest
from trunkline.sip.headers import Field
from trunkline.sip.message import MalformedMessage, Request, Response

_HEADERS: Final = {
    401: ("WWW-Authenticate", "Authorization"),
    407: ("Proxy-Authenticate", "Proxy-Authorization"),
}
"""Where each status has its challenge, and where the answer goes."""


class Login:
    """A user's credentials for one request: each kind of challenge is answered once, a stale nonce once more."""

    __slots__ = ("_challenges", "_password", "_renewed", "_used", "_user")

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password
        self._challenges: dict[int, digest.Challenge] = {}
        self._renewed: set[int] = set()
        self._used: dict[str, int] = {}  # nonce counts

    def fresh(self) -> "Login":
        """The same credentials, for another request."""
        return Login(self._user, self._password)

    def answer(self, request: Request, response: Response, cnonce: str) -> list[Field] | None:
        """The credentials to send the request again with; None if the challenge is none, unknown, or was answered
        already."""
        status = response.status
        challenge = _challenge_of(response)
        if challenge is None:
            return None
        if status in self._challenges:
            if not challenge.stale or status in self._renewed:
                return None
            self._renewed.add(status)
        self._challenges[status] = challenge
        return [
            (_HEADERS[kind][1], self._credentials(asked, request, cnonce)) for kind, asked in self._challenges.items()
        ]

    def _credentials(self, challenge: digest.Challenge, request: Request, cnonce: str) -> str:
        count = self._used[challenge.nonce] = self._used.get(challenge.nonce, 0) + 1
        return digest.answer(
            challenge, self._user, self._password, request.method, request.uri, cnonce, count, request.body
        )


def _challenge_of(response: Response) -> digest.Challenge | None:
    """The first challenge that we can answer: the server names its favourite first (RFC 8760 section 2.4)."""
    names = _HEADERS.get(response.status)
    for value in response.headers.all(names[0]) if names else ():
        try:
            challenge = digest.parse_challenge(value)
        except MalformedMessage:
            continue
        if challenge.answerable:
            return challenge
    return None
