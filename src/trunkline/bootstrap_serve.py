"""Running a node behind uvicorn until a signal ends it."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

import uvicorn
import uvloop

from trunkline import bootstrap_processes as processes
from trunkline import inherited
from trunkline.bootstrap import Node
from trunkline.bootstrap_stores import CannotStart, data_folder, take_folder
from trunkline.bootstrap_voice import tls_config
from trunkline.listeners.guarded_http import HttpLimits, guarded
from trunkline.settings import Settings
from trunkline.sip.tls import TlsContexts, TlsError
from trunkline.storage.secrets import BadMasterKey, CannotOpen
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.testing.phones import remote
from trunkline.testing.phones.remote import Phones

SPARE_FILES = 1024
"""Open files beside connections: databases, segments, carriers."""
GC_THRESHOLDS = (10_000, 20, 50)
"""Garbage is collected in larger steps than Python's default of 700 objects: the hot path makes no cycles, and what was
loaded at the start is never garbage. A step takes about half a microsecond an object; nothing else runs meanwhile."""

log = logging.getLogger("trunkline")


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it listens and stops the node after it."""

    def __init__(self, config: uvicorn.Config, node: Node) -> None:
        super().__init__(config)
        self._node = node

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own raises the signal again when serving has ended, which would end the process there and then: the
        node has still to be stopped."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Calls that are up may end by themselves first; the API serves them meanwhile. Another interrupt hurries."""
        await self._node.drain(lambda: self.force_exit)
        await super().shutdown(sockets)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                log.info("listening on %s port %d", host, port)
                if not self._node.settings.server.public_url and not self._node.settings.server.port:
                    self._node.base_url = f"http://{host}:{port}"


def serve(settings: Settings) -> None:
    """Run one node until SIGINT or SIGTERM. Exits with status 1 and one line when it cannot start.

    Where calls are taken this process becomes the supervisor, which runs the same command again as its child.
    """
    if settings.sip.enabled and not inherited.supervised():
        _supervise(settings)
    if inherited.supervised():
        inherited.end_with_parent()
    _allow_files(settings)
    try:
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings))
    except (CannotStart, CannotSurvive, BadMasterKey, CannotOpen, StoreUnavailable) as error:
        raise SystemExit(f"trunkline: {error}") from None


def _supervise(settings: Settings) -> NoReturn:
    """See what would keep the node from starting before anything else is touched. Exits like `serve`."""
    try:
        os.close(take_folder(data_folder(settings)))
        _port_is_free(settings.server.host, settings.server.port)
        TlsContexts(tls_config(settings)).load()
    except (CannotStart, TlsError) as error:
        raise SystemExit(f"trunkline: {error}") from None
    processes.run(settings)


def _allow_files(settings: Settings) -> None:
    """Raise the soft limit of open files to what the settings' connections need, as far as the hard limit allows."""
    wanted = settings.server.max_connections + settings.smpp_server.max_connections + settings.webhooks.in_flight
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted += SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _port_is_free(host: str, port: int) -> None:
    """Seen before carriers are connected, not after. Raises CannotStart."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotStart(f"cannot listen on {host} port {port}: {reason}; see server.host and server.port") from None


async def _phones(settings: Settings) -> Phones | None:
    """The simulated phones, where a trunk leads to them. Raises CannotStart."""
    if not remote.wanted(settings):
        return None
    try:
        return await Phones.start(data_folder(settings), host=remote.host(settings), engine=settings.speech.engine)
    except remote.CannotStart as error:
        raise CannotStart(str(error)) from None


async def _serve(settings: Settings) -> None:
    phones = await _phones(settings)
    try:
        await _serve_with(remote.with_phones(settings, phones) if phones else settings, phones)
    finally:
        if phones is not None:
            await phones.stop()


async def _serve_with(settings: Settings, phones: Phones | None) -> None:
    node = Node(settings, phones=phones)
    given = [number for name, number in inherited.descriptors().items() if name.startswith(inherited.HTTP)]
    sockets = [socket.socket(fileno=number) for number in given] or None
    if sockets is None:
        _port_is_free(settings.server.host, settings.server.port)
    await node.start()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    own = settings.server
    config = uvicorn.Config(
        node.app,
        host=own.host,
        port=own.port,
        http=guarded(
            HttpLimits(
                head_bytes=own.max_header_bytes,
                request_s=own.request_timeout_s,
                write_s=own.request_timeout_s,
                connections=own.max_connections,
            )
        ),
        ws="none",
        lifespan="off",
        proxy_headers=False,
        access_log=False,
        log_config=None,
        server_header=False,
        backlog=own.backlog,
        timeout_keep_alive=int(own.keep_alive_s),
        timeout_graceful_shutdown=int(own.shutdown_s),
        ssl_certfile=own.tls_cert or None,
        ssl_keyfile=own.tls_key or None,
    )
    try:
        await _Server(config, node).serve(sockets)
    finally:
        await node.stop()
