"""One frozen `Settings` that holds every limit with its unit, read from one TOML file and the environment."""

from trunkline.settings.connectors import CONNECTORS, Connector, Http, Loopback, Smpp, Twilio
from trunkline.settings.kinds import Secret, Section
from trunkline.settings.load import Settings, SettingsError, load
from trunkline.settings.memory import Memory
from trunkline.settings.objects import Objects
from trunkline.settings.profiles import PROFILES, Profile
from trunkline.settings.sections import (
    Archive,
    Data,
    Limits,
    Log,
    Messaging,
    Rate,
    Route,
    Security,
    Server,
    SmppServer,
    Storage,
    Webhooks,
)
from trunkline.settings.trunk import Gateway, Trunk
from trunkline.settings.voice import MediaEngine, Sip, Speech, Voice

__all__ = [
    "CONNECTORS",
    "PROFILES",
    "Archive",
    "Connector",
    "Data",
    "Gateway",
    "Http",
    "Limits",
    "Log",
    "Loopback",
    "MediaEngine",
    "Memory",
    "Messaging",
    "Objects",
    "Profile",
    "Rate",
    "Route",
    "Secret",
    "Section",
    "Security",
    "Server",
    "Settings",
    "SettingsError",
    "Sip",
    "Smpp",
    "SmppServer",
    "Speech",
    "Storage",
    "Trunk",
    "Twilio",
    "Voice",
    "Webhooks",
    "load",
]
