"""The `[objects]` section: where files are kept that every node reads."""

import re
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit

from trunkline.settings.kinds import Bytes, Secret, Section

GIB = 1 << 30
_SCHEMES = ("s3", "file", "memory")


class Objects(Section, frozen=True, kw_only=True):
    """Where archive segments, media and recordings are kept for all nodes of a cluster, and what runs of recordings
    while they run. Without `url` they are in folders of `data.path`. With it recent documents of the archive are in
    `storage.database`, so `storage.engine` must be `postgres`; needs `pip install trunkline[cluster]`."""

    url: str = ""
    """`s3://BUCKET/FOLDER` (any store that speaks S3), `file:///mnt/shared/trunkline` (a folder that every node mounts)
    or `memory:///` (tests of one process). Empty: local folders."""
    region: str = ""
    """Region of the bucket; empty: `us-east-1`, which most stores other than Amazon's take."""
    access_key: Secret = Secret("")
    """Access key id; empty: what the machine's own role or environment gives."""
    secret_key: Secret = Secret("")
    """Its secret."""
    endpoint: str = ""
    """`https://host:port` of a store other than Amazon's."""
    prefix: str = ""
    """Put before every name, behind the folder of `url`."""
    survives: Literal["process", "power", "host", "zone", "region"] = "host"
    """What the store outlives, as its operator says: S3 has no way to ask. `trunkline doctor` shows it."""
    cache_bytes: Bytes = 10 * GIB
    """Archive segments kept on this node's disk, at most; an analysis must find room there for all that it reads."""


def objects_problems(own: Objects, engine: str) -> Iterator[str]:
    """What does not fit together, one line each; `engine` is `storage.engine`."""
    if not own.url:
        for name in ("region", "access_key", "secret_key", "endpoint", "prefix"):
            if getattr(own, name):
                yield f"objects.{name}: is of no use without objects.url; add that or remove this"
        return
    parts = urlsplit(own.url)
    if parts.scheme not in _SCHEMES:
        yield f"objects.url: {own.url[:80]!r} is not s3://BUCKET/FOLDER or file:///FOLDER"
    elif parts.scheme == "s3" and not parts.netloc:
        yield "objects.url: s3:// needs a bucket, as in s3://BUCKET/FOLDER"
    elif parts.scheme == "file" and (parts.netloc or len(parts.path) < 2):
        yield "objects.url: file:// needs an absolute path, as in file:///mnt/shared/trunkline"
    if parts.username or parts.password or parts.query:
        yield "objects.url: keys do not belong here; say objects.access_key and objects.secret_key, best as env:NAME"
    if bool(own.access_key) != bool(own.secret_key):
        yield "objects.secret_key: access_key and secret_key go together"
    if own.endpoint and not re.match(r"https?://[^/\s]+/?\Z", own.endpoint):
        yield f"objects.endpoint: {own.endpoint[:80]!r} is not https://host:port"
    if engine != "postgres":
        yield 'objects.url: a shared archive keeps its recent documents in PostgreSQL; say storage.engine = "postgres"'
