"""Two SIP edges with one floating address: Kamailio and keepalived as docs/howto/sip-edge.md sets them up."""

import json
import shutil
from pathlib import Path
from typing import Final

from lab import probe
from lab.hosts import Host, Service
from lab.network import LINK
from lab.outside import PHONES, SIP_EDGE
from lab.plan import OUTSIDE, SIP_PORT, Zone
from lab.system import ROOT, in_network, program, run

HOSTS: Final = {"edge1": f"{OUTSIDE}.7", "edge2": f"{OUTSIDE}.8"}
"""The two, and their own addresses."""
PROGRAMS: Final = ("kamailio", "keepalived")
"""Debian's packages have their names."""
KEEPALIVED: Final = """
global_defs {{
  enable_script_security
  script_user nobody
  vrrp_version 3
}}
vrrp_script sip {{
  script "/usr/bin/pgrep -f {mark}"
  interval 1
  fall 2
}}
vrrp_instance edge {{
  interface {link}
  state BACKUP
  virtual_router_id 10
  priority {priority}
  advert_int 0.5
  virtual_ipaddress {{ {address}/16 }}
  notify_master "{kamcmd} -s unix:{folder}/kamailio_ctl dispatcher.reload" root
  track_script {{ sip }}
}}
"""
"""As on the page, but for the look at Kamailio: here all processes of the machine see each other."""


def put(host: Host, zones: tuple[Zone, ...], priority: int) -> None:
    """Let the host be one of the edges; the phones are its carrier."""
    folder = host.folder
    run("ip", "netns", "exec", host.namespace, "sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1")
    host.put(_kamailio(zones, folder))
    file = folder / "keepalived.conf"
    mark = str(folder / "kamailio.cfg")
    file.write_text(
        KEEPALIVED.format(
            mark=mark, link=LINK, priority=priority, address=SIP_EDGE, kamcmd=program("kamcmd"), folder=folder
        )
    )
    pids = [word for name in ("p", "r", "c") for word in (f"-{name}", str(folder / f"keepalived.{name}.pid"))]
    command = (program("keepalived") or "keepalived", "-n", "-l", "-f", str(file), *pids)
    host.put(Service(name="keepalived", kind="edge", command=command, ready=answers))


def _kamailio(zones: tuple[Zone, ...], folder: Path) -> Service:
    shutil.copy(ROOT / "deploy/kamailio.cfg", folder)
    sets = [*(f"1 sip:{zone.node}:{SIP_PORT} 8" for zone in zones), f"3 sip:{PHONES}:{SIP_PORT}"]
    dispatcher = folder / "dispatcher.list"
    dispatcher.write_text("\n".join(sets) + "\n")
    own = [f'#!define DISPATCHER_LIST "{dispatcher}"', "#!define CHILDREN 1", f"tcp_source_ipv4={SIP_EDGE}"]
    own += [f"listen={transport}:{SIP_EDGE}:{SIP_PORT}" for transport in ("udp", "tcp")]
    (folder / "edge.cfg").write_text("\n".join(own) + "\n")
    words = ("-DD", "-E", "-m", "64", "-M", "8", "-Y", str(folder))
    command = (program("kamailio") or "kamailio", "-f", str(folder / "kamailio.cfg"), *words)
    return Service(name="kamailio", kind="edge", command=command)


def answers() -> bool:
    """Whether whichever edge has the address answers."""
    return probe.answers_sip(SIP_EDGE, SIP_PORT)


def has_nodes(host: Host) -> bool:
    """Whether an edge takes a node for alive, and so new calls."""
    words = (program("kamcmd"), "-s", f"unix:{host.folder}/kamailio_ctl", "dispatcher.list")
    return "FLAGS: A" in run(*in_network(host.namespace, words), check=False)


def forget_address(host: Host) -> None:
    """A host that starts again has it no more; a namespace does not lose it with its processes."""
    run("ip", "-n", host.namespace, "addr", "del", f"{SIP_EDGE}/16", "dev", LINK, check=False)


def has_address(host: Host) -> bool:
    """Whether the floating address is this host's now."""
    found = json.loads(run("ip", "-n", host.namespace, "-j", "addr", "show", "dev", LINK))
    return any(one["local"] == SIP_EDGE for link in found for one in link["addr_info"])
