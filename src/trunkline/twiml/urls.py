"""Relative URLs of a document."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from urllib.parse import urljoin, urlsplit

KEPT: Final = 1024
"""References whose URL is kept: most calls run the same few documents."""
KEPT_CHARACTERS: Final = 1000
"""Longer ones are not."""


def resolve(base: str | None, reference: str) -> str | None:
    """`reference` against the URL the document came from (after redirects); an empty one is the document.

    None when there is no absolute http(s) URL: a relative reference in a document that has no URL (it came
    as a parameter), or another scheme. Overrides in the fragment (`#rc=2`) belong to the reference.
    """
    short = len(reference) + len(base or "") <= KEPT_CHARACTERS
    return _kept(base, reference) if short else _resolve(base, reference)


def _resolve(base: str | None, reference: str) -> str | None:
    reference = reference.strip()
    try:
        joined = urljoin(base, reference) if base else reference
        parts = urlsplit(joined)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            return None
    except ValueError:
        return None
    return joined


_kept = lru_cache(maxsize=KEPT)(_resolve)
