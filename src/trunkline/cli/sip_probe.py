"""What `trunkline doctor sip` asks a trunk's servers, from a SIP port of its own: the server goes on undisturbed.

One `Finding` a look: what is wrong, and what to do about it. Registrations are asked for, never changed: a REGISTER
without a Contact tells whether the login is right (RFC 3261 section 10.2.3).
"""

import asyncio
import os
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple

from trunkline.cli.findings import Finding
from trunkline.settings import Settings, Trunk
from trunkline.sip import sdp
from trunkline.sip.errors import MalformedMessage, MalformedSdp
from trunkline.sip.flow import Flow, Target, bracketed, is_numeric, is_private
from trunkline.sip.identity import sip_uri
from trunkline.sip.message import Response
from trunkline.sip.transport import SipTransport
from trunkline.sip.uri import Uri

ANSWER_S: Final = 4.0
"""How long a server may take to answer."""
CONNECT_S: Final = 4.0
ERRNO: Final = re.compile(r"^\[Errno -?[0-9]+\] ")
SICK: Final = frozenset({408, 503})
NO_LOGIN: Final = frozenset({401, 403, 404, 407})
EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound


class Answered(NamedTuple):
    """A final response, or none: then `status` is 408 (silence) or 503 (it could not be sent)."""

    status: int
    response: Response | None
    ms: float
    flow: Flow


class NoCalls:
    """The core of the doctor's own stack."""

    def permitted(self, request: Any, flow: Flow) -> bool:
        return False

    def on_invite(self, invite: Any) -> None:
        invite.reject(403)

    def on_request(self, request: Any, flow: Flow) -> None:
        return None


class Probe:
    """One trunk's examination. `sip` has been started."""

    def __init__(self, settings: Settings, trunk: Trunk, sip: SipTransport) -> None:
        self._settings = settings
        self._trunk = trunk
        self._sip = sip
        self._seen: dict[str, str] = {}
        """Our address as servers see it, by ours."""

    def _finding(self, verdict: str, text: str) -> Finding:
        return Finding(verdict, self._trunk.name, text)

    async def look(self) -> AsyncIterator[Finding]:
        """Everything about it, in the order in which one would look."""
        trunk = self._trunk
        if trunk.simulated:
            yield self._finding("ok", "simulated phones: no carrier, nobody is called")
            return
        for finding in self._settings_of():
            yield finding
        for gateway in trunk.gateway_list:
            async for finding in self._server(Uri.parse(gateway.uri), "gateway"):
                yield finding
        if trunk.register:
            known = {one.uri for one in trunk.gateway_list}
            for registrar in trunk.registrars or tuple(one.uri for one in trunk.gateway_list[:1]):
                async for finding in self._registrar(Uri.parse(registrar), registrar in known):
                    yield finding

    def _settings_of(self) -> Iterator[Finding]:
        trunk, sip = self._trunk, self._settings.sip
        doors = trunk.addresses or trunk.password or trunk.tls_names or trunk.register
        if not doors:
            text = "takes no calls: give it addresses, a login, tls_names or register = true"
            yield self._finding("warn", text)
        if not trunk.gateways:
            yield self._finding("warn", "makes no calls: it has no gateways")
        if trunk.tls_names and not (sip.tls_port and sip.tls_client_ca):
            text = "tls_names are never seen: set sip.tls_port and sip.tls_client_ca, so that clients show certificates"
            yield self._finding("bad", text)
        if trunk.srtp == "required" and not sip.srtp_without_tls:
            for uri in (one.uri for one in trunk.gateway_list if not _names_tls(one.uri)):
                text = f'srtp = "required" needs TLS, which {uri} does not name: add ;transport=tls, unless DNS says so'
                yield self._finding("warn" if _is_name(uri) else "bad", text)
        if trunk.srtp == "optional" and not sip.srtp_without_tls:
            for uri in (one.uri for one in trunk.gateway_list if not _names_tls(one.uri)):
                unless = ", unless DNS says TLS" if _is_name(uri) else ""
                text = f'srtp = "optional": calls to {uri} go without it{unless}; keys are for TLS: add ;transport=tls'
                yield self._finding("warn", text)
        if trunk.gateways and not trunk.prefixes:
            yield self._finding("warn", 'makes no calls: prefixes is empty; [""] takes every destination')

    # -- one server ------------------------------------------------------------------------------------------

    async def _server(self, uri: Uri, what: str) -> AsyncIterator[Finding]:
        """Name, connection, OPTIONS, and what the answer tells."""
        try:
            targets = await self._targets(uri)
        except OSError as error:
            text = f"{what} {uri} cannot be resolved: {_why(error)}; correct the name, or set sip.dns_servers"
            yield self._finding("bad", text)
            return
        if not is_numeric(uri.bare_host):
            yield self._finding("ok", f"{uri.host} is {', '.join(_shown(one) for one in targets)}")
        for target in targets:
            finding = await self._connected(uri, target)
            if finding is not None:
                yield finding
                continue
            answered = await self._ask(uri, target)
            for one in self._of_options(uri, target, answered):
                yield one

    async def _targets(self, uri: Uri) -> list[Target]:
        secure = uri.scheme == "sips"
        return await self._sip.resolve(uri.bare_host, uri.port, "" if secure else uri.transport, secure)

    async def _connected(self, uri: Uri, target: Target) -> Finding | None:
        """Why no connection can be made; None: it can, or none is needed."""
        if target.transport not in ("TCP", "TLS"):
            return None
        place = f"{uri} at {_shown(target)}"
        own = self._settings.sip
        secure = self._client_context() if target.transport == "TLS" else None
        name = (target.domain or target.host) if secure is not None else None
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(target.host, target.port, ssl=secure, server_hostname=name)
                writer.close()
        except ssl.SSLCertVerificationError as error:
            text = f"{place}: its certificate is not trusted: {error.verify_message}; give its authority in sip.tls_ca"
            return self._finding("bad" if own.tls_verify else "warn", text)
        except ssl.SSLError as error:
            return self._finding("bad", f"{place}: no TLS there: {error.reason or error}; check port and transport")
        except TimeoutError:
            text = f"{place}: no connection within {CONNECT_S:g} s; is a firewall between, or the port wrong?"
            return self._finding("bad", text)
        except OSError as error:
            text = f"{place}: no connection: {_why(error)}; check host, port and transport"
            return self._finding("bad", text)
        return None

    def _client_context(self) -> ssl.SSLContext:
        own = self._settings.sip
        context = ssl.create_default_context()
        if own.tls_ca:
            context.load_verify_locations(own.tls_ca)
        if own.tls_certificate:
            context.load_cert_chain(own.tls_certificate, own.tls_key or None)
        if not own.tls_verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    async def _ask(self, uri: Uri, target: Target) -> Answered:
        trunk = self._trunk
        request_uri = str(uri.replace(user="", host=trunk.domain or uri.host))
        return await self._request("OPTIONS", request_uri, target, [("Accept", "application/sdp")])

    async def _request(
        self, method: str, uri: str, target: Target, headers: list[tuple[str, str]], **more: Any
    ) -> Answered:
        loop = asyncio.get_running_loop()
        told: asyncio.Future[tuple[int, Response | None]] = loop.create_future()

        def on_response(status: int, response: Response | None) -> None:
            if not told.done():
                told.set_result((status, response))

        flow = self._sip.stack.flow_to(target)
        here = f"{bracketed(flow.local[0])}:{flow.local[1]}"
        more.setdefault("from_", f"<sip:doctor@{here}>")
        began = time.perf_counter()
        self._sip.stack.request(method, uri, target=flow, headers=headers, on_response=on_response, **more)
        try:
            status, response = await asyncio.wait_for(told, ANSWER_S)
        except TimeoutError:
            status, response = 408, None
        return Answered(status, response, (time.perf_counter() - began) * 1000, flow)

    def _of_options(self, uri: Uri, target: Target, answered: Answered) -> Iterator[Finding]:
        place = f"{uri} at {_shown(target)}" if not is_numeric(uri.bare_host) else str(uri)
        response = answered.response
        if response is None:
            if answered.status != 408:
                text = f"{place} cannot be reached; check the address and the route to it"
                yield self._finding("bad", text)
                return
            text = f"{place} does not answer OPTIONS within {ANSWER_S:g} s: a firewall, a wrong port or transport, "
            yield self._finding("warn", text + "or a carrier that does not know our address yet (ask which it expects)")
            return
        verdict = "warn" if answered.status in SICK else "ok"
        text = f"{place} answers OPTIONS with {answered.status} in {answered.ms:.0f} ms"
        yield self._finding(verdict, text + ("; it says that it cannot take calls now" if verdict == "warn" else ""))
        yield from self._of_addresses(target, response, answered.flow)
        yield from self._of_codecs(place, response)
        known = _within(target.host, self._trunk.addresses) or target.host in self._settings.sip.edges
        if self._trunk.addresses and not known and not self._trunk.password:
            text = f"{target.host} is a gateway but not in addresses: calls that come from it are refused; add it"
            yield self._finding("warn", text)

    # -- our own address -------------------------------------------------------------------------------------

    def _of_addresses(self, target: Target, response: Response, flow: Flow) -> Iterator[Finding]:
        """Whether the addresses that we tell are those by which we can be reached."""
        seen, port = _seen(response, flow)
        if seen in self._seen:
            return
        self._seen[seen] = target.host
        ours, media = self._told(target, flow)
        what = "media.advertised" if self._settings.media.advertised else "sip.advertised"
        if media != seen and is_private(media) and not is_private(target.host) and not _loopback(target.host):
            text = f"SDP will name {media}, which is private, and the gateway is public: calls will be silent; "
            yield self._finding("bad", text + f'set sip.advertised = "{seen}", or advertised of this trunk')
        elif is_numeric(media) and media != seen and not _loopback(seen):
            text = f"the gateway sees us at {seen}, but SDP will name {media}: calls may be silent; "
            yield self._finding("bad", text + f'set {what} = "{seen}", or make the NAT use {media}')
        elif is_numeric(ours) and ours != seen and not _loopback(seen):
            text = f"the gateway sees us at {seen}, but Contact will name {ours}: requests may not come back; "
            yield self._finding("bad", text + f'set sip.advertised = "{seen}"')
        elif seen in (ours, media):
            yield self._finding("ok", f"the gateway sees us at {seen}, which is what we tell it")
        else:
            told = ours if ours == media else f"{ours} in Contact and {media} in SDP"
            yield self._finding(
                "ok", f"the gateway sees us at {seen}, we tell it {told}; from here it cannot be compared"
            )
        if port != flow.local[1] and not flow.reliable:
            text = f"a NAT changes our port ({flow.local[1]} is seen as {port}): forward SIP and RTP ports unchanged, "
            yield self._finding("warn", text + "or let the trunk register, and options_ping_s keep the way open")

    def _told(self, target: Target, flow: Flow) -> tuple[str, str]:
        """Our addresses in Contact and in SDP, as the server will write them (trunkline.bootstrap_voice)."""
        sip, media, trunk = self._settings.sip, self._settings.media, self._trunk
        local = flow.local[0]
        signalling = trunk.advertised or sip.advertised or (local if sip.host in EVERYWHERE else sip.host)
        named = (trunk.advertised, media.advertised, sip.advertised)
        audio = next((one for one in named if is_numeric(one)), "")
        bound = self._sip.local_address_towards(target.host) if media.host in EVERYWHERE else media.host
        return signalling, audio or bound

    # -- codecs ----------------------------------------------------------------------------------------------

    def _of_codecs(self, place: str, response: Response) -> Iterator[Finding]:
        theirs = _codecs(response)
        ours = self._trunk.codecs
        if not theirs:
            return
        common = [name for name in ours if name.upper() in theirs]
        if common:
            yield self._finding("ok", f"{place} has {', '.join(common)} of our codecs")
        else:
            text = f"{place} has none of our codecs ({', '.join(ours)}), but {', '.join(sorted(theirs))}; "
            yield self._finding("bad", text + "add one to codecs")

    # -- registration ----------------------------------------------------------------------------------------

    async def _registrar(self, uri: Uri, known: bool) -> AsyncIterator[Finding]:
        """Whether the login is right."""
        try:
            targets = await self._targets(uri)
        except OSError as error:
            if not known:
                yield self._finding("bad", f"registrar {uri} cannot be resolved: {_why(error)}; correct the name")
            return
        trunk = self._trunk
        host = trunk.domain or uri.host
        address = f"<{sip_uri(trunk.register_user or trunk.username, host)}>"
        for target in targets:
            if not known and (finding := await self._connected(uri, target)) is not None:
                yield finding
                continue
            answered = await self._request(
                "REGISTER", f"sip:{host}", target, [], to=address, from_=address,
                credentials=(trunk.username, str(trunk.password)),
            )  # fmt: skip
            yield self._of_register(uri, answered)
            if answered.response is not None and not known:
                for one in self._of_addresses(target, answered.response, answered.flow):
                    yield one
            if answered.response is not None and answered.status not in SICK:
                return

    def _of_register(self, uri: Uri, answered: Answered) -> Finding:
        status, response = answered.status, answered.response
        if response is None:
            return self._finding("bad", f"registrar {uri} does not answer REGISTER; check address, port and transport")
        if 200 <= status < 300:
            count = len(response.headers.all("Contact"))
            now = f"{count} registered at the moment" if count else "nobody is registered at the moment"
            return self._finding("ok", f"registrar {uri} accepts the login of {self._trunk.username}; {now}")
        text = f"registrar {uri} answers {status} {response.reason}"
        if status in NO_LOGIN:
            return self._finding("bad", text + ": check username, password, register_user and domain")
        return self._finding("warn" if status in SICK else "bad", text)


def _why(error: OSError) -> str:
    """What an operator can make of it: neither numbers nor calls."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return ERRNO.sub("", error.strerror or str(error))


def _names_tls(uri: str) -> bool:
    parsed = Uri.parse(uri)
    return parsed.scheme == "sips" or parsed.transport.upper() == "TLS"


def _is_name(uri: str) -> bool:
    """Whether DNS may name TLS for it (RFC 3263 section 4.1)."""
    parsed = Uri.parse(uri)
    return not parsed.transport and not parsed.port and not is_numeric(parsed.bare_host)


def _shown(target: Target) -> str:
    return f"{target.transport or 'UDP'} {bracketed(target.host)}:{target.port}"


def _seen(response: Response, flow: Flow) -> tuple[str, int]:
    """Our address and port as the peer has seen them (RFC 3581), else as we know them."""
    try:
        via = response.via
    except MalformedMessage:
        return flow.local
    return via.received or via.host.strip("[]"), via.rport or via.port or flow.local[1]


def _loopback(host: str) -> bool:
    return is_numeric(host) and ip_address(host.strip("[]")).is_loopback


def _within(host: str, networks: Sequence[str]) -> bool:
    address = ip_address(host.strip("[]")) if is_numeric(host) else None
    return address is not None and any(address in ip_network(text, strict=False) for text in networks)


def _codecs(response: Response) -> set[str]:
    """Names of the audio codecs that an answer to OPTIONS describes (RFC 3261 section 11.2), in capitals."""
    if not response.body or response.content_type != "application/sdp":
        return set()
    try:
        description = sdp.parse(response.body)
    except MalformedSdp:
        return set()
    found: set[str] = set()
    for media in description.media:
        if media.kind == "audio":
            found |= {_STATIC[number] for number in media.formats if number in _STATIC}
            found |= {value.split(" ", 1)[-1].partition("/")[0].upper() for value in media.attributes("rtpmap")}
    return found - {"TELEPHONE-EVENT", "CN"}


_STATIC: Final = {"0": "PCMU", "3": "GSM", "8": "PCMA", "9": "G722", "18": "G729"}
