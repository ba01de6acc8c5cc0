"""What a supervisor runs, as data."""

import json
from dataclasses import asdict, dataclass, field


@dataclass
class Child:
    """One process."""

    name: str
    argv: list[str]
    wants: list[str] = field(default_factory=list)
    """Names of the descriptors it gets; one that ends with a dash stands for all that begin so."""
    main: bool = False
    """Whether its orderly end is the supervisor's: the other children are then stopped too."""
    standby: bool = False
    """Whether a second one waits, all set, for the first to end: both get a pipe named `baton` and work once a byte
    comes out of it (see trunkline.inherited.await_baton)."""


@dataclass
class Ports:
    """The RTP ports that are kept (trunkline.media.ports)."""

    path: str
    """Socket at which the media process gets them."""
    host: str = "127.0.0.1"
    port_min: int = 20_000
    port_max: int = 29_998
    pairs: int = 4000
    """At most."""


@dataclass
class Plan:
    """Children in the order of their start; they are stopped in the opposite one."""

    children: list[Child]
    sip_host: str = "127.0.0.1"
    sip_port: int = 5060
    """-1: no sockets are made for SIP."""
    sip_tls_port: int = 0
    """0: no socket is made for TLS."""
    http_host: str = "127.0.0.1"
    http_port: int = -1
    """-1: no socket is made for the API."""
    smpp_host: str = "127.0.0.1"
    smpp_port: int = -1
    """-1: no socket is made for SMPP clients."""
    control: str = ""
    """Unix socket at which it takes orders (trunkline.supervisor.desk); empty: none."""
    memories: list[str] = field(default_factory=list)
    """Names of shared memories to make."""
    ports: Ports | None = None
    stop_s: float = 40.0
    """Seconds that a child may take to end before it is killed."""

    def to_json(self) -> str:
        """As the command line carries it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan again."""
        tree = json.loads(text)
        ports = tree["ports"]
        children = [Child(**child) for child in tree["children"]]
        return cls(**{**tree, "children": children, "ports": Ports(**ports) if ports else None})
