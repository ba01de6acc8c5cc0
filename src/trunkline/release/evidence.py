"""What a release has shown: signed, chained documents in the post-flight archive, one a step.

Theory: a release has no record that changes. It *is* its evidence: how it stands is read from the documents, in their
order. Each holds the SHA-256 of the one before and is signed by the environment's key, so that none can be changed,
left out or put in between without being seen; the next environment takes the whole chain as a file and trusts the key.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trunkline.model.sid import new_sid
from trunkline.release.people import is_signed, public_line, sign
from trunkline.storage.archive import Archive, Document

ACCOUNT: Final = "AC" + "0" * 32
"""Whose the documents are: nobody's, so no customer sees them and no retention takes them."""
KIND: Final = "release"
ABORT: Final = "release-abort"
RELEASE: Final = "RL"
EVIDENCE: Final = "EV"
PAGE: Final = 500
MAX_DOCUMENTS: Final = 20_000
"""Of all releases of one environment, that are read."""

Step = Literal[
    "planned", "passed", "failed", "approved", "promoted", "started", "moved", "judged", "done",
    "rolled_back",
]  # fmt: skip


class BadEvidence(Exception):
    """The evidence does not hold; the text is one line."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step of a release."""

    kind: str = KIND
    v: int = 1
    sid: str
    account_sid: str = ACCOUNT
    parent_sid: str
    """The release."""
    status: Step
    environment: str
    number: int
    """Counts the steps of the release."""
    previous: str = ""
    """SHA-256 of the step before, hexadecimal; of the first: empty."""
    base: str
    head: str
    risk_class: str
    by: str = ""
    """Who or what did it."""
    what: dict[str, Any] = {}
    """What was shown."""
    created_ms: int
    key: str
    """The environment's public key."""
    signature: str = ""

    @property
    def release(self) -> str:
        """The release's SID."""
        return self.parent_sid


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(Evidence).decode


def digest(evidence: Evidence) -> str:
    """SHA-256 of a step, as the next one names it."""
    return hashlib.sha256(_encode(evidence)).hexdigest()


def check_chain(chain: Sequence[Evidence]) -> None:
    """Raises BadEvidence unless the steps are whole, in order and signed by one key."""
    previous = ""
    for number, each in enumerate(chain, 1):
        named = f"step {each.number} of {each.release}"
        if (each.number, each.previous, each.release) != (number, previous, chain[0].release):
            raise BadEvidence(f"{named} does not follow from step {number - 1}: the chain was cut, forked or changed")
        if each.key != chain[0].key:
            raise BadEvidence(f"{named} is signed by another key than the first")
        if not is_signed(each.key, _encode(msgspec.structs.replace(each, signature="")), each.signature):
            raise BadEvidence(f"{named} is not what was signed")
        previous = digest(each)


def dump(chain: Sequence[Evidence]) -> bytes:
    """The chain as a file for the next environment, one JSON object a line."""
    return b"".join(_encode(each) + b"\n" for each in chain)


def parse(text: bytes) -> list[Evidence]:
    """The chain in such a file, checked. Raises BadEvidence."""
    try:
        chain = [_decode(line) for line in text.splitlines() if line.strip()]
    except msgspec.MsgspecError as error:
        raise BadEvidence(f"this is no exported evidence: {error}") from None
    if not chain:
        raise BadEvidence("there is no evidence in it")
    check_chain(chain)
    return chain


class Records:
    """The evidence of one environment."""

    def __init__(self, archive: Archive, key: Ed25519PrivateKey, environment: str, now_ms: Callable[[], int]) -> None:
        self._archive = archive
        self._key = key
        self._public = public_line(key)
        self._now_ms = now_ms
        self.environment = environment

    async def all(self) -> dict[str, list[Evidence]]:
        """The chains of all releases, the newest release first. Raises BadEvidence when there are too many to read."""
        found: list[Evidence] = []
        before = ""
        while True:
            page = await self._archive.page(ACCOUNT, KIND, before=before, after="", limit=PAGE, filters={})
            found += [_decode(document.body) for document in page]
            if len(page) < PAGE:
                break
            if len(found) > MAX_DOCUMENTS:
                raise BadEvidence(f"there are more than {MAX_DOCUMENTS} documents of releases")
            before = page[-1].sid[2:]
        chains: dict[str, list[Evidence]] = {}
        for each in sorted(found, key=lambda each: (each.release, each.number, each.sid)):
            chains.setdefault(each.release, []).append(each)
        return dict(sorted(chains.items(), reverse=True))

    async def chain(self, release: str) -> list[Evidence]:
        """The steps of one release, checked; empty when there is none. Raises BadEvidence."""
        chain = (await self.all()).get(release, [])
        check_chain(chain)
        if chain and chain[0].key != self._public:
            raise BadEvidence(f"{release} is signed by another key than this environment's")
        return chain

    async def plan(self, base: str, head: str, risk_class: str, by: str, what: dict[str, Any]) -> Evidence:
        """Begin a release."""
        now = self._now_ms()
        first = Evidence(
            sid=new_sid(EVIDENCE, now, 0), parent_sid=new_sid(RELEASE, now, 0), status="planned", number=1,
            environment=self.environment, base=base, head=head, risk_class=risk_class, by=by, what=what,
            created_ms=now, key=self._public,
        )  # fmt: skip
        return await self._keep(first)

    async def add(self, chain: list[Evidence], status: Step, by: str, what: dict[str, Any]) -> Evidence:
        """The next step of a release; it is put at the chain's end, too."""
        last = chain[-1]
        now = max(self._now_ms(), last.created_ms + 1)  # pages are in the order of time
        following = msgspec.structs.replace(
            last, sid=new_sid(EVIDENCE, now, 0), status=status, number=last.number + 1, previous=digest(last),
            by=by, what=what, created_ms=now, signature="",
        )  # fmt: skip
        kept = await self._keep(following)
        chain.append(kept)
        return kept

    async def ask_to_abort(self, release: str, by: str) -> None:
        """Leave word for whoever runs the release. It is no step: two processes would fork the chain."""
        now = self._now_ms()
        word = {"kind": ABORT, "parent_sid": release, "by": by, "created_ms": now}
        document = Document(
            sid=new_sid(EVIDENCE, now, 0), account=ACCOUNT, kind=ABORT, rev=1, body=msgspec.json.encode(word)
        )
        await self._archive.land([document])

    async def asked_to_abort(self, release: str) -> str:
        """Who asked for it; empty: nobody."""
        page = await self._archive.page(ACCOUNT, ABORT, before="", after=release[2:14], limit=PAGE, filters={})
        words = [msgspec.json.decode(document.body) for document in page]
        return next((str(word["by"]) for word in words if word["parent_sid"] == release), "")

    async def _keep(self, evidence: Evidence) -> Evidence:
        signed = msgspec.structs.replace(evidence, signature=sign(self._key, _encode(evidence)))
        document = Document(sid=signed.sid, account=ACCOUNT, kind=KIND, rev=1, body=_encode(signed))
        await asyncio.shield(asyncio.ensure_future(self._archive.land([document])))
        return signed
