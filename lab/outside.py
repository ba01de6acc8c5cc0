"""What is not ours: the carrier's SMSC, the name server, and the edge in front of the nodes' HTTP ports (HAProxy)."""

import sys
from pathlib import Path

from lab import probe
from lab.hosts import Service
from lab.plan import DNS_PORT, EDGE_PORT, HTTP_PORT, OUTSIDE, SMSC_CONTROL_PORT, SMSC_PORT, Zone
from lab.system import ROOT, program

EDGE, SMSC, WEBHOOKS, PHONES, NAMES = (f"{OUTSIDE}.{number}" for number in (1, 2, 3, 4, 5))
ADDRESSES = (EDGE, SMSC, WEBHOOKS, PHONES, NAMES)
SIP_EDGE = f"{OUTSIDE}.6"
"""The address of whichever SIP edge has it (lab.sip_edge)."""
CUSTOMER = "webhooks.lab.test"
"""Name of the customers' web server."""
LATENCY_MS, RECEIPT_DELAY_MS = 5, 100

HAPROXY = """
global
  maxconn 4000
  nbthread 1
defaults
  mode http
  timeout connect 500ms
  timeout client 90s
  timeout server 90s
  timeout check 1s
  retries 3
  option redispatch 1
  option http-keep-alive
frontend api
  bind {edge}:{port}
  default_backend nodes
backend nodes
  balance roundrobin
  option httpchk GET {check}
  http-check expect status 200
  http-check disable-on-404
  default-server inter 250ms fastinter 100ms fall 2 rise 2 on-marked-down shutdown-sessions
{servers}
"""


def edge(zones: tuple[Zone, ...], folder: Path, check: str) -> Service:
    """The load balancer: what cannot be connected to is tried at another node, what was sent is never sent again."""
    servers = "\n".join(f"  server {zone.name} {zone.node}:{HTTP_PORT} check" for zone in zones)
    file = folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(edge=EDGE, port=EDGE_PORT, check=check, servers=servers))
    return Service(
        name="edge", kind="edge", command=(program("haproxy") or "haproxy", "-db", "-f", str(file)),
        ready=lambda: probe.answers_http(EDGE, EDGE_PORT, "/healthz"),
    )  # fmt: skip


def smsc() -> Service:
    """The carrier."""
    options = {
        "host": SMSC, "port": SMSC_PORT, "control-port": SMSC_CONTROL_PORT,
        "latency-ms": LATENCY_MS, "receipt-delay-ms": RECEIPT_DELAY_MS,
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return Service(
        name="smsc", kind="smsc", command=(sys.executable, str(ROOT / "bench/fake_smsc.py"), *words),
        ready=lambda: probe.answers_http(SMSC, SMSC_CONTROL_PORT, "/stats"),
    )  # fmt: skip


def names() -> Service:
    """The name server that the nodes ask."""
    words = ("--host", NAMES, "--port", str(DNS_PORT), f"{CUSTOMER}={WEBHOOKS}")
    return Service(
        name="names", kind="other", command=(sys.executable, str(ROOT / "lab/names.py"), *words),
        ready=lambda: probe.resolves(NAMES, DNS_PORT, CUSTOMER),
    )  # fmt: skip


def resolver(folder: Path) -> Path:
    """What /etc/resolv.conf is for a node."""
    file = folder / "resolv.conf"
    file.write_text(f"nameserver {NAMES}\n")
    return file
