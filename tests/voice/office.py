"""A SIP domain on `Lines`: its users, its lists, and phones that register."""

import asyncio

from tests.voice.lines import APP, NODE, Phone
from trunkline.model.account import Account
from trunkline.model.sid import new_sid
from trunkline.model.sip_domain import SipCredential, SipDomain, SipIpAddress, SipMapping, mapping_sid
from trunkline.settings import Sip
from trunkline.sip import digest, offer_answer
from trunkline.voice.domains import Domains
from trunkline.voice.logins import Logins
from trunkline.voice.registrations import Registrations

from ..messaging.world import AC

REALM = "trunkline"
HOST = "acme.sip.localhost"
CL, AL = "CL" + "1" * 32, "AL" + "1" * 32
DESKS = [(f"127.0.1.{number}", 5060) for number in range(1, 5)]
PASSWORD = "s3cret"


class Office:
    """See the module. `failed` are the sources of wrong logins."""

    def __init__(self, lines):
        self.lines = lines
        self.failed = []
        logins = Logins(REALM, b"secret", lines.clock, failed=self.failed.append)
        self.registrations = Registrations(lines.memory, lines.directory, lines.alerts, logins, Sip(), lines.clock)
        self.domains = Domains(lines.directory, logins, self.registrations)
        lines.inbound._domains = lines.outbound.domains = self.domains

    async def open(self, *users, lists=("calls", "registrations"), account_sid=AC, **changes):
        """The domain, with users who may do both."""
        values = {
            "sid": new_sid("SD"), "account_sid": account_sid, "name": "acme", "domain_name": HOST,
            "voice_url": APP + "domain", "sip_registration": True,
        }  # fmt: skip
        self.domain = SipDomain(**(values | changes))
        database = self.lines.database
        await database.insert(self.domain)
        for user in users:
            await self.hire(user)
        for purpose in lists:
            await self.map(CL, purpose)
        return self

    async def hire(self, user):
        hashes = {f"ha1_{name.lower().replace('-', '')}": digest.ha1(name, user, REALM, PASSWORD)
                  for name in ("MD5", "SHA-256")}  # fmt: skip
        await self.lines.database.insert(
            SipCredential(
                sid=new_sid("CR"), account_sid=AC, credential_list_sid=CL, username=user, realm=REALM, **hashes
            )
        )

    async def map(self, list_sid, purpose="calls"):
        sid = mapping_sid(self.domain.sid, purpose, list_sid)
        await self.lines.database.insert(
            SipMapping(sid=sid, account_sid=AC, owner_sid=self.domain.sid, list_sid=list_sid, purpose=purpose)
        )

    async def allow(self, address, prefix=32):
        """Let an address in."""
        await self.lines.database.insert(
            SipIpAddress(
                sid=new_sid("IP"), account_sid=AC, ip_access_control_list_sid=AL, ip_address=address,
                cidr_prefix_length=prefix,
            )
        )  # fmt: skip
        await self.map(AL)

    async def stranger(self, sid="AC" + "b" * 32):
        """Another account."""
        await self.lines.database.insert(
            Account(sid=sid, account_sid=sid, owner_account_sid=sid, auth_token="t", status="active")
        )
        return sid

    def desk(self, number=0):
        """A phone that nobody has registered."""
        return Phone(self.lines.net, DESKS[number])

    async def register(self, phone, user, *, password=PASSWORD, contact="", headers=()):
        """Register a phone; the final response."""
        done = asyncio.get_running_loop().create_future()
        host, port = phone.address
        phone.stack.request(
            "REGISTER", f"sip:{HOST}", to=f"<sip:{user}@{HOST}>", from_=f"<sip:{user}@{HOST}>",
            target=("UDP", *NODE), headers=[("Contact", contact or f"<sip:{user}@{host}:{port}>"), *headers],
            credentials=(user, password), on_response=lambda status, response: done.set_result((status, response)),
        )  # fmt: skip
        status, response = await done
        self.response = response
        return status

    async def staffed(self, *users):
        """A phone for each, registered; one user may have several."""
        phones = []
        for number, user in enumerate(users):
            phones.append(self.desk(number))
            assert await self.register(phones[-1], user) == 200
        return phones

    def dials(self, phone, to, user="alice", password=PASSWORD, headers=()):
        """A call from a phone to somebody at the domain."""
        return phone.stack.invite(
            f"sip:{to}@{HOST}", from_=f'"Alice" <sip:{user}@{HOST}>', target=("UDP", *NODE),
            sdp=offer_answer.offer(phone.local), headers=headers, listener=phone,
            credentials=(user, password) if password else None,
        )  # fmt: skip
