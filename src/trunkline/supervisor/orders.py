"""Giving orders to a supervisor, from any process of its user (trunkline.supervisor.desk)."""

import json
import socket
from collections.abc import Iterator
from typing import Any, Final

LONGEST_S: Final = 600.0
"""Without a word for so long, the supervisor is taken to be stuck."""


class NoSupervisor(Exception):
    """Nobody takes orders there; one line for the operator."""


def give(path: str, order: dict[str, Any], silence_s: float = LONGEST_S) -> Iterator[dict[str, Any]]:
    """What the supervisor says to an order, line by line; the last has `over` set. Raises NoSupervisor."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(silence_s)
        try:
            connection.connect(path)
            connection.sendall(json.dumps(order).encode() + b"\n")
            with connection.makefile("rb") as lines:
                for line in lines:
                    said = json.loads(line)
                    yield said
                    if said.get("over"):
                        return
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoSupervisor(
                f"no supervisor takes orders at {path}: the server does not run, or without one (server.supervisor)"
            ) from None
        except (OSError, ValueError) as error:
            raise NoSupervisor(f"the supervisor does not answer: {error}") from None
        raise NoSupervisor("the supervisor ended before it was done")
