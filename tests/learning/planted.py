"""Candidates with a fault in them, as `--candidate smpp=planted:NAME` loads them."""

import os
import socket
from dataclasses import replace

from trunkline.messaging.connectors.base import Submission
from trunkline.messaging.connectors.smpp import SmppConnector
from trunkline.twiml import Document, parse

OUTSIDE = "outside.txt"
"""In the folder of this module: the port that `Escaping` tries to reach."""


class BadlyEncoding(SmppConnector):
    """Sends what GSM-7 has no octets for as if it had."""

    def submit(self, submission: Submission) -> None:
        submission.message.body = submission.message.body.replace("€", "?")
        super().submit(submission)


class Crashing(SmppConnector):
    """Takes the whole process along."""

    def submit(self, submission: Submission) -> None:
        if "7" in submission.message.body:
            os.abort()
        super().submit(submission)


class Raising(SmppConnector):
    """Knows no names but Smith."""

    def submit(self, submission: Submission) -> None:
        if "Smith" not in submission.message.body:
            raise ZeroDivisionError("planted")
        super().submit(submission)


class Absent(SmppConnector):
    """Cannot be made."""

    def __init__(self, *_: object) -> None:
        raise LookupError("no such thing")


class Spinning(SmppConnector):
    """Never comes back."""

    def submit(self, submission: Submission) -> None:
        while True:
            pass


class Hoarding(SmppConnector):
    """Wants all memory that there is."""

    def submit(self, submission: Submission) -> None:
        kept = []
        while True:
            kept.append(bytearray(1 << 20))


class Escaping(SmppConnector):
    """Tries to get out: to the carrier, to the node's stores, to other processes."""

    def submit(self, submission: Submission) -> None:
        folder = os.path.dirname(__file__)
        with open(os.path.join(folder, OUTSIDE)) as file:
            port, data, pid, settings = file.read().split("\n")
        told = []
        with socket.socket() as line:
            told.append(f"connect {line.connect_ex(('127.0.0.1', int(port)))}")
        told.append(f"data {sorted(os.listdir(data))}")
        told.append(f"process {os.path.exists(f'/proc/{pid}')}")
        with open(settings, "rb") as given, open("/proc/1/environ", "rb") as environment:
            told.append(f"secrets {len(given.read())} {b'TRUNKLINE' in environment.read()}")
        try:
            with open(os.path.join(folder, "written"), "w"):
                told.append("file written")
        except OSError as error:
            told.append(f"file {error.errno}")
        submission.message.body = "; ".join(told)
        super().submit(submission)


def hasty_parse(*given: object, **named: object) -> object:
    """Parses TwiML, and has no time for keys."""
    found = parse(*given, **named)  # type: ignore[arg-type]
    if not isinstance(found, Document):
        return found
    return replace(found, verbs=tuple(verb for verb in found.verbs if type(verb).__name__ != "Gather"))
