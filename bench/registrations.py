"""What a REGISTER costs: the SIP stack, the registrar and its journal called in process, one core.

    python bench/registrations.py [PHONES]

Each of PHONES users registers once and refreshes three times with its login; then come REGISTERs with wrong passwords.
Counts CPU time from the datagram's bytes to the answer's, with the write to the journal, without the socket.
"""

import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from trunkline.model.account import Account
from trunkline.model.clock import SystemClock
from trunkline.model.sip_domain import Ha1, SipDomain
from trunkline.settings import Sip
from trunkline.sip import digest
from trunkline.sip.core import Answer, StackConfig
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request
from trunkline.sip.server_invite import ServerInvite
from trunkline.sip.stack import Stack
from trunkline.storage.engines.journal.memory import JournalStore
from trunkline.voice.logins import Logins
from trunkline.voice.registrations import Registrations

PHONES: Final = 5000
REFRESHES: Final = 3
HOST, REALM, SID = "acme.sip.localhost", "trunkline", "AC" + "0" * 32
PASSWORD = "Correct-Horse-7"
MESSAGE: Final = """\
REGISTER sip:{host} SIP/2.0\r
Via: SIP/2.0/UDP {address}:5060;branch=z9hG4bK{user}x{cseq};rport\r
Max-Forwards: 70\r
From: "Phone" <sip:{user}@{host}>;tag={user}\r
To: <sip:{user}@{host}>\r
Call-ID: {user}@phone\r
CSeq: {cseq} REGISTER\r
Contact: <sip:{user}@{address}:5060;transport=udp>;expires=600\r
User-Agent: Phone 1.2.3\r
Allow: INVITE, ACK, BYE, CANCEL, OPTIONS\r
Supported: path, outbound\r
{login}Content-Length: 0\r
\r
"""


class OneDomain:
    """A directory with one domain that knows everybody."""

    def __init__(self) -> None:
        self._account = Account(sid=SID, owner_account_sid=SID, status="active")
        self._domain = SipDomain(
            sid="SD" + "0" * 32, account_sid=SID, domain_name=HOST, name="acme", sip_registration=True
        )
        self._logins: dict[str, tuple[Ha1, ...]] = {}

    def account(self, sid: str) -> Account:
        return self._account

    def sip_domain(self, host: str) -> SipDomain:
        return self._domain

    def sip_login(self, sid: str, user: str, purpose: str) -> tuple[Ha1, ...]:
        found = self._logins.get(user)
        if found is None:
            md5, sha256 = (digest.ha1(name, user, REALM, PASSWORD) for name in ("MD5", "SHA-256"))
            found = self._logins[user] = (Ha1(md5, sha256, REALM),)
        return found


class Core:
    """Takes REGISTERs only."""

    def __init__(self, registrations: Registrations) -> None:
        self._registrations = registrations

    def on_invite(self, invite: ServerInvite) -> None:
        """There are none."""

    def on_request(self, request: Request, flow: Flow) -> Answer | None:
        return self._registrations.register(request, flow)

    def permitted(self, request: Request, flow: Flow) -> bool:
        return True


class NoAlerts:
    """Nobody is told."""

    def raise_(self, *args: Any, **kwargs: Any) -> str:
        return ""


class Bench:
    """The phones."""

    def __init__(self, phones: int, folder: Path) -> None:
        self.phones = phones
        clock, directory = SystemClock(), OneDomain()
        memory, alerts = JournalStore(folder / "journal", clock), NoAlerts()
        logins = Logins(REALM, b"secret", clock)
        self.registrations = Registrations(memory, directory, alerts, logins, Sip(), clock)  # type: ignore[arg-type]
        self.sent: list[bytes] = []
        self.stack = Stack(
            StackConfig(), self._send, time.monotonic, lambda: secrets.token_hex(10), Core(self.registrations)
        )
        addresses = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(phones)]
        self.flows = [Flow("UDP", (address, 5060), ("10.255.0.1", 5060)) for address in addresses]
        self.challenges: list[digest.Challenge] = []

    def _send(self, data: bytes, flow: Flow) -> bool:
        self.sent.append(data)
        return True

    def messages(self, cseq: int, password: str = "") -> list[bytes]:
        """One of each phone; with a login once they have been challenged."""
        made = []
        for number in range(self.phones):
            user, login = f"phone{number}", ""
            if password:
                answer = digest.answer(
                    self.challenges[number], user, password, "REGISTER", f"sip:{HOST}", "cnonce", cseq
                )
                login = f"Authorization: {answer}\r\n"
            address = self.flows[number].remote[0]
            text = MESSAGE.format(host=HOST, user=user, address=address, cseq=cseq, login=login)
            made.append(text.encode())
        return made

    def measure(self, what: str, messages: Sequence[bytes]) -> None:
        """Take them all; print what one costs."""
        self.sent.clear()
        began = time.process_time()
        for message, flow in zip(messages, self.flows, strict=True):
            self.stack.receive(message, flow)
        took_s = time.process_time() - began
        status = self.sent[-1].split(b" ", 2)[1].decode()
        print(f"{what:12} {status}  {took_s / len(messages) * 1e6:6.0f} us  {len(messages) / took_s:8.0f}/s")

    def run(self) -> None:
        """Everything."""
        self.measure("challenge", self.messages(1))
        for data in self.sent:
            line = next(line for line in data.decode().split("\r\n") if line.startswith("WWW-Authenticate"))
            self.challenges.append(digest.parse_challenge(line.partition(": ")[2]))
        for turn in range(REFRESHES + 1):
            self.measure("refresh" if turn else "register", self.messages(2 + turn, PASSWORD))
        self.measure("wrong login", self.messages(9, "Wrong-Horse-1"))
        print(f"{self.registrations.count} contacts, {self.stack.transactions} transactions left")


def main() -> None:
    """See the module."""
    phones = int(sys.argv[1]) if len(sys.argv) > 1 else PHONES
    with tempfile.TemporaryDirectory() as folder:
        Bench(phones, Path(folder)).run()


if __name__ == "__main__":
    main()
