"""The `[release]` section: how new versions reach the nodes, and when a canary is believed."""

from typing import Annotated

from msgspec import Meta

from trunkline.settings.kinds import Count, Seconds, Section


class Release(Section, frozen=True, kw_only=True):
    """How `trunkline release start` takes a release from node to node, and how it judges the first ones. See
    docs/howto/releases.md."""

    move: str = ""
    """Command that puts a version on a node and returns when that serves, run without a shell, once a node.
    `{version}` stands for the commit, `{name}`, `{zone}`, `{address}` and `{http}` for the node. Going back is the same
    command with the former version. Empty: nothing can be started."""
    move_timeout_s: Seconds = 900.0
    """Longest run of it."""
    ready_s: Seconds = 120.0
    """How long a node may take after that until /readyz says that it can accept."""
    watch_s: Seconds = 600.0
    """How long canaries are compared with the other nodes."""
    minimum: Count = 500
    """Requests that canaries and other nodes must each have answered in that time: fewer prove nothing, and the release
    is rolled back."""
    significance: Annotated[float, Meta(gt=0, le=0.2)] = 0.01
    """Chance of a false alarm that is put up with over the whole time, for errors and for latency each."""
    trusted_key: str = ""
    """Public key (`ssh-ed25519 ...`) of the environment below, as `trunkline release key` prints it there: the evidence
    that `trunkline promote` takes must be signed by it."""
