"""Kannel (Debian's package) as the system under test: bearerbox and smsbox, file store on, receipts in memory."""

import shutil
from pathlib import Path
from urllib.parse import quote, quote_plus

from bench.gateway import TEXT, recipient
from bench.processes import Failed, Process, free_ports, listens
from bench.sink import Sample

CONFIGURATION = """
group = core
admin-port = {admin}
admin-interface = "127.0.0.1"
admin-password = bench
smsbox-port = {boxes}
box-allow-ip = "127.0.0.1"
log-file = "{folder}/bearerbox.log"
log-level = 3
store-type = file
store-location = "{folder}/kannel.store"
dlr-storage = internal

group = smsc
smsc = smpp
smsc-id = carrier
host = 127.0.0.1
port = {smsc}
smsc-username = kannel
smsc-password = secret
system-type = ""
transceiver-mode = true
max-pending-submits = {window}
reconnect-delay = 1
enquire-link-interval = 30

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {http}
sendsms-interface = "127.0.0.1"
log-file = "{folder}/smsbox.log"
log-level = 3

group = sendsms-user
username = bench
password = bench
concatenation = true
max-messages = 10
"""
START_S = 15.0
DELIVERED_OR_FAILED = 3
"""dlr-mask: one callback, when the message has ended."""
SENDER = "12025550142"


class Kannel:
    """See bench.gateway.Gateway."""

    name = "kannel"

    def __init__(self, folder: Path, smsc_port: int, window: int = 100) -> None:
        admin, boxes, self.port = free_ports(3)
        self._folder = folder
        self._boxes = boxes
        self._configuration = folder / "kannel.conf"
        self._configuration.write_text(
            CONFIGURATION.format(admin=admin, boxes=boxes, http=self.port, smsc=smsc_port, window=window, folder=folder)
        )
        self._processes: list[Process] = []

    @property
    def roots(self) -> list[int]:
        return [process.pid for process in self._processes]

    def start(self) -> None:
        for program, port in (("bearerbox", self._boxes), ("smsbox", self.port)):
            path = where(program)
            if path is None:
                raise Failed(missing())
            process = Process([path, str(self._configuration)], self._folder, f"{program}.out")
            self._processes.append(process)
            process.until(lambda port=port: listens(port), START_S, f"waiting for {program}")  # type: ignore[misc]

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.stop()
        self._processes.clear()

    def request(self, key: str, number: int, sink_url: str) -> bytes:
        callback = quote(f"{sink_url}/receipt?k={key}&st=%d", safe="")
        target = (
            f"/cgi-bin/sendsms?username=bench&password=bench&from={SENDER}&to={recipient(number)}"
            f"&text={quote_plus(TEXT % key)}&dlr-mask={DELIVERED_OR_FAILED}&dlr-url={callback}"
        )
        return f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode()

    def is_final(self, url: bytes, body: bytes) -> bool:
        return url.endswith(b"&st=1")

    def counters(self) -> dict[str, float]:
        return {}

    def genuine(self, url: str, sample: Sample) -> bool | None:
        return None


def where(program: str) -> str | None:
    """The program's path; Debian puts Kannel's into /usr/sbin, which is not on every user's path."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin")


def missing() -> str:
    """What is not installed, as one line; empty when all is there."""
    absent = [program for program in ("bearerbox", "smsbox") if where(program) is None]
    return f"Kannel is not installed ({', '.join(absent)}): run scripts/test-setup.sh" if absent else ""
