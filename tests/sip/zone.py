"""A name server on loopback that answers from a table."""

import asyncio
from collections.abc import Sequence
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class Zone(asyncio.DatagramProtocol):
    """`records` maps (name, kind) to texts as zone files have them; `broken` names get SERVFAIL, `deaf` nothing."""

    def __init__(self, records: dict[tuple[str, str], Sequence[str]], ttl: int = 300) -> None:
        self.records = {(name.lower(), kind): texts for (name, kind), texts in records.items()}
        self.ttl = ttl
        self.asked: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.deaf = False
        self._transport: Any = None

    async def start(self) -> "Zone":
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    @property
    def server(self) -> str:
        """As `sip.dns_servers` has it."""
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    def close(self) -> None:
        self._transport.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        (question,) = query.question
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if self.deaf:
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        texts = self.records.get((name, kind))
        if name in self.broken:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif texts:
            answer.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *texts))
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), addr)
