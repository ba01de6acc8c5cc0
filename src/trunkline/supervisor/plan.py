"""What a supervisor runs, as data."""

import json
from dataclasses import asdict, dataclass, field


@dataclass
class Child:
    """One process."""

    name: str
    argv: list[str]
    wants: list[str] = field(default_factory=list)
    """Names of the descriptors it gets."""
    main: bool = False
    """Whether its orderly end is the supervisor's: the other children are then stopped too."""


@dataclass
class Plan:
    """Children in the order of their start; they are stopped in the opposite one."""

    children: list[Child]
    sip_host: str = "127.0.0.1"
    sip_port: int = 5060
    memories: list[str] = field(default_factory=list)
    """Names of shared memories to make."""
    rtp_host: str = ""
    rtp_port_min: int = 20_000
    rtp_port_max: int = 29_998
    stop_s: float = 40.0
    """Seconds that a child may take to end before it is killed."""

    def to_json(self) -> str:
        """As the command line carries it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan again."""
        tree = json.loads(text)
        return cls(**{**tree, "children": [Child(**child) for child in tree["children"]]})
