"""Running a node behind uvicorn until a signal ends it."""

import asyncio
import contextlib
import gc
import logging
import resource
import socket

import uvicorn
import uvloop

from trunkline import bootstrap_handover, bootstrap_supervise, inherited
from trunkline.bootstrap import Node
from trunkline.bootstrap_handover import Server
from trunkline.bootstrap_stores import CannotStart, data_folder, port_is_free
from trunkline.listeners.guarded_http import HttpLimits, guarded
from trunkline.settings import Settings
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


def serve(settings: Settings) -> None:
    """Run one node until SIGINT or SIGTERM. Exits with status 1 and one line when it cannot start.

    Mostly this process becomes the supervisor (trunkline.bootstrap_supervise), which runs the same command again as its
    child.
    """
    if bootstrap_supervise.wanted(settings):
        bootstrap_supervise.supervise(settings)
    channel = inherited.channel()
    if inherited.supervised():
        inherited.end_with_parent()
        if not bootstrap_handover.await_turn(channel, settings):
            return
    _allow_files(settings)
    try:
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, channel))
    except (CannotStart, CannotSurvive, BadMasterKey, CannotOpen, StoreUnavailable) as error:
        raise SystemExit(f"trunkline: {error}") from None


def _allow_files(settings: Settings) -> None:
    """Raise the soft limit of open files to what the settings' connections need, as far as the hard limit allows."""
    wanted = settings.server.max_connections + settings.smpp_server.max_connections + settings.webhooks.in_flight
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted += SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _phones(settings: Settings) -> Phones | None:
    """The simulated phones, where a trunk leads to them. Raises CannotStart."""
    if not remote.wanted(settings):
        return None
    try:
        return await Phones.start(data_folder(settings), host=remote.host(settings), engine=settings.speech.engine)
    except remote.CannotStart as error:
        raise CannotStart(str(error)) from None


async def _serve(settings: Settings, channel: inherited.Channel | None) -> None:
    phones = await _phones(settings)
    try:
        await _serve_with(remote.with_phones(settings, phones) if phones else settings, phones, channel)
    finally:
        if phones is not None:
            await phones.stop()


async def _serve_with(settings: Settings, phones: Phones | None, channel: inherited.Channel | None) -> None:
    node = Node(settings, phones=phones)
    given = [number for name, number in inherited.descriptors().items() if name.startswith(inherited.HTTP)]
    sockets = [socket.socket(fileno=number) for number in given] or None
    if sockets is None:
        port_is_free(settings.server.host, settings.server.port)
    bootstrap_handover.take_orders(node)
    early = bootstrap_handover.inherit(channel, node)
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
        interface="asgi3",
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
        await Server(config, node, channel, early).serve(sockets)
    finally:
        await node.stop()
