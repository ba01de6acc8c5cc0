"""Which nodes a request may be handed to."""

from types import SimpleNamespace

import pytest

from trunkline.bootstrap_roles import RoleMap
from trunkline.cluster.records import NodeRecord

MESSAGES = "/2010-04-01/Accounts/AC00000000000000000000000000000000/Messages"


class Member:
    """A membership with an API node, this one, and one that does everything else."""

    name = "api"

    def __init__(self) -> None:
        self.away = False
        self.quiet: set[str] = set()
        nodes = [NodeRecord(name="api", roles=("api",)), NodeRecord(name="all", roles=("messaging", "voice", "media"))]
        self.view = SimpleNamespace(nodes={one.name: one for one in nodes})

    def silent(self, name: str) -> bool:
        return name in self.quiet


@pytest.fixture
def member() -> Member:
    return Member()


@pytest.fixture
def roles(member: Member) -> RoleMap:
    settings = SimpleNamespace(node=SimpleNamespace(roles=("api",)), cluster=SimpleNamespace(voice_partitions=0))
    return RoleMap(settings, SimpleNamespace(partitions=4), member, None)  # type: ignore[arg-type]


def test_a_silent_node_is_handed_nothing(roles: RoleMap, member: Member) -> None:
    assert (roles.with_role("messaging"), roles.lacks(MESSAGES)) == (["all"], "")
    member.quiet = {"all"}
    assert (roles.with_role("messaging"), roles.lacks(MESSAGES)) == ([], "messaging")


def test_nobody_is_silent_while_the_store_is_away(roles: RoleMap, member: Member) -> None:
    """Then nobody's renewals are seen, and the nodes hold each other's leases."""
    member.quiet, member.away = {"all"}, True
    assert (roles.with_role("messaging"), roles.lacks(MESSAGES)) == (["all"], "")
