"""For machines without namespaces: Python resolves Twilio's names to the address in TRUNKLINE_TEST_SERVER."""

import os
import socket

_resolve = socket.getaddrinfo
_host, _, _port = os.environ["TRUNKLINE_TEST_SERVER"].rpartition(":")


def getaddrinfo(host, port, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if name and name.endswith(".twilio.com"):
        return _resolve(_host, int(_port), *args, **kwargs)
    return _resolve(host, port, *args, **kwargs)


socket.getaddrinfo = getaddrinfo
