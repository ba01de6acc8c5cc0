"""Becoming the supervisor. Apart from `trunkline.bootstrap_serve`, so that it need not load what a node is made of."""

import os
from typing import NoReturn

from trunkline import bootstrap_processes as processes
from trunkline import inherited
from trunkline.bootstrap_stores import CannotStart, data_folder, port_is_free, take_folder
from trunkline.settings import Settings
from trunkline.sip.tls import TlsContexts, TlsError


def wanted(settings: Settings) -> bool:
    """Whether this process is to become the supervisor: it is not under one, and there is something to keep."""
    own = settings.server.supervisor
    keeps = settings.sip.enabled or settings.profile != "development"
    return not inherited.supervised() and (own == "yes" or (own == "auto" and keeps))


def supervise(settings: Settings) -> NoReturn:
    """See what would keep the node from starting before anything else is touched. Exits with status 1 and one line."""
    try:
        os.close(take_folder(data_folder(settings)))
        port_is_free(settings.server.host, settings.server.port)
        if settings.sip.enabled:
            TlsContexts(processes.tls_config(settings)).load()
    except (CannotStart, TlsError) as error:
        raise SystemExit(f"trunkline: {error}") from None
    processes.run(settings)
