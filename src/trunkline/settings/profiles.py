"""Environment profiles: what differs between development and production, as data."""

from collections.abc import Mapping
from typing import Any

from trunkline.settings.kinds import Section

EVERYWHERE = "0.0.0.0"  # noqa: S104 - a server's listener, behind the operator's own proxy or firewall


class Profile(Section, frozen=True, kw_only=True):
    """One rung of the promotion ladder."""

    defaults: Mapping[str, Mapping[str, Any]]
    """Section -> key -> the default here, where it differs from the common one."""
    loopback: bool
    """Whether a loopback connector may be configured (and is the default when there is none)."""
    own_master_key: bool
    """Whether a missing master key is made and kept in the data folder."""
    strict: bool
    """Whether dangerous settings (the master key beside the data, webhooks to any private address) are refused."""


PROFILES: dict[str, Profile] = {
    "development": Profile(
        defaults={
            "security": {"webhook_private_networks": True},
            "log": {"format": "console"},
        },
        loopback=True,
        own_master_key=True,
        strict=False,
    ),
    "integration": Profile(
        defaults={"security": {"webhook_private_networks": True}},
        loopback=True,
        own_master_key=True,
        strict=False,
    ),
    "staging": Profile(
        defaults={"server": {"host": EVERYWHERE}, "data": {"path": "/var/lib/trunkline"}},
        loopback=True,
        own_master_key=False,
        strict=True,
    ),
    "production": Profile(
        defaults={"server": {"host": EVERYWHERE}, "data": {"path": "/var/lib/trunkline"}},
        loopback=False,
        own_master_key=False,
        strict=True,
    ),
}
"""development: one machine, nothing needed. integration: as development, fed by tests. staging: production's rules with
loopback carriers allowed. production: secrets from outside, real carriers, no dangerous setting."""
