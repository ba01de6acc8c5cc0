"""Ports for servers that have to know them before they start."""

import random
import socket

PORTS = 30_000, 32_700


def free_port(host: str = "127.0.0.1", span: int = 1) -> int:
    """An even port that nobody has, over UDP and TCP; the next `span` - 1 are free as well. None of those that the
    system or the media process gives away: what will listen there may be started much later."""
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(*PORTS, 2)
        if all(_is_free(host, one) for one in range(port, port + span)):
            return port


def _is_free(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True
