"""The sockets that the supervisor keeps: made once, inherited by each process of the node, never closed between two."""

import socket
from typing import Final

from trunkline.inherited import HTTP, SIP_TCP, SIP_TLS, SIP_UDP, SMPP
from trunkline.media.ports import NoPorts, PortKeeper, PortService
from trunkline.sip import transport_sockets
from trunkline.supervisor.plan import Plan, Ports

TCP_BACKLOG: Final = 512


class CannotBind(Exception):
    """A port is taken; the text is one line for the operator."""


def bind_all(plan: Plan) -> dict[str, socket.socket]:
    """What a plan asks for, by the names under which children get it. Raises CannotBind."""
    bound = bind_sip(plan.sip_host, plan.sip_port) if plan.sip_port >= 0 else {}
    if plan.sip_tls_port:
        bound[SIP_TLS] = bind_tls(plan.sip_host, plan.sip_tls_port)
    if plan.http_port >= 0:
        bound.update(bind_listeners(HTTP, plan.http_host, plan.http_port, "server.host and server.port"))
    if plan.smpp_port >= 0:
        where = "smpp_server.host and smpp_server.port"
        bound.update(bind_listeners(SMPP, plan.smpp_host, plan.smpp_port, where))
    return bound


def serve_ports(plan: Ports) -> PortService:
    """Open the first RTP ports and hand them, and more on demand, to the media process. Raises CannotBind."""
    keeper = PortKeeper(plan.host, plan.port_min, plan.port_max, plan.pairs)
    try:
        keeper.open_block()
        return PortService(keeper, plan.path)
    except (NoPorts, OSError) as error:
        raise CannotBind(f"{error}; see media.host and media.port_min") from None


def bind_sip(host: str, port: int) -> dict[str, socket.socket]:
    """UDP and TCP sockets on one port; 0 lets the system choose. Raises CannotBind."""
    try:
        udp, tcp = transport_sockets.bind(host, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotBind(f"cannot take SIP port {port} on {host}: {reason}; see sip.host and sip.port") from None
    udp.setblocking(False)
    tcp.setblocking(False)
    return {SIP_UDP: udp, SIP_TCP: tcp}


def bind_tls(host: str, port: int) -> socket.socket:
    """A listening socket for SIP over TLS. Raises CannotBind."""
    try:
        tls = transport_sockets.bind_tls(host, port)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotBind(f"cannot take TLS port {port} on {host}: {reason}; see sip.host and sip.tls_port") from None
    tls.setblocking(False)
    return tls


def bind_http(host: str, port: int) -> dict[str, socket.socket]:
    """Sockets for the API. Raises CannotBind."""
    return bind_listeners(HTTP, host, port, "server.host and server.port")


def bind_listeners(name: str, host: str, port: int, settings: str) -> dict[str, socket.socket]:
    """Listening sockets on every address that the host stands for (empty: all), under a name and a number. `settings`
    say what to change. Raises CannotBind."""
    bound: dict[str, socket.socket] = {}
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = bound[f"{name}{len(bound)}"] = socket.socket(family, kind, protocol)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(TCP_BACKLOG)
            one.setblocking(False)
    except OSError as error:
        for one in bound.values():
            one.close()
        reason = error.strerror or str(error)
        text = f"cannot listen on {host} port {port}: {reason}; see {settings}"
        raise CannotBind(text) from None
    return bound
