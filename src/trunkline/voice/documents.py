"""Fetching the documents that calls run: the URL, else the fallback URL with `ErrorCode` and `ErrorUrl`.

An answer of an XML type is TwiML; `audio/*` is played, `text/plain` that is no TwiML is spoken, and then the call ends
as at the end of any document. What goes wrong raises an alert.
Source: Twilio's "TwiML for Programmable Voice: how Twilio interprets responses", webhook contract section 0.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trunkline.accounts.callbacks import idempotency_token
from trunkline.model.call import Status
from trunkline.telemetry.traceparent import HEADER
from trunkline.twiml import Document, DocumentKind, TwimlError, Verb, encoding, parse, resolve
from trunkline.voice import params as parameters
from trunkline.voice import timeline
from trunkline.voice.checkpoints import DocumentCheckpoint
from trunkline.voice.steps import Goto, Inline, Source
from trunkline.voice.verbs import SPECS
from trunkline.voice.verbs.play import Play
from trunkline.voice.verbs.say import Say
from trunkline.webhooks.attempt import Attempt
from trunkline.webhooks.failures import HTTP_RETRIEVAL_FAILURE
from trunkline.webhooks.fetch import Answer, FetchRequest
from trunkline.webhooks.overrides import split
from trunkline.webhooks.params import Params, encode_form, fallback

if TYPE_CHECKING:
    from trunkline.voice.live import LiveCall
    from trunkline.voice.session import Session

GATE_LOOK_S: Final = 0.05
"""Between two looks whether this node may speak again."""
MAX_WARNINGS: Final = 10
"""Alerts for warnings about one document."""
CACHED_DOCUMENTS: Final = 256
"""Parsed documents kept; many calls get the same one."""
CACHED_BYTES: Final = 8192
"""Longest document that is kept parsed."""
NO_URL: Final = 11100
MAX_SHOWN_BODY: Final = 1024
"""Characters of an answer that the timeline keeps."""
INLINE_TYPE: Final = "text/xml; charset=utf-8"
_UNPARSED: Final = frozenset({12100, 12101, 12102})


class Found(NamedTuple):
    """A document that can run. `base` is its URL, empty where it has none."""

    verbs: tuple[Verb, ...]
    base: str
    content_type: str = ""
    body: bytes = b""


class _Failed(NamedTuple):
    """Why there is none; the alert has been raised. `url` is shown to the fallback."""

    code: int
    url: str


async def load(session: Session, source: Source) -> Found | None:
    """The document to go on with; None when there is none, the fallback URL's included."""
    if isinstance(source, Inline):
        body = source.twiml.encode("utf-8", "replace")
        found = _read(session, body, INLINE_TYPE, "", None)
        if isinstance(found, _Failed):
            return await _fallback(session, found, [])
        return found
    params = list(source.params)
    url = resolve(session.base, source.url)
    if url is None:
        what = "is relative, and the document has no URL" if session.base is None else "is not a URL"
        session.alert(NO_URL, f"{source.url[:200]!r} {what}")
        return await _fallback(session, _Failed(NO_URL, source.url), params)
    got = await _document(session, url, source.method, params)
    return got if isinstance(got, Found) else await _fallback(session, got, params)


async def _fallback(session: Session, failed: _Failed, extra: Params) -> Found | None:
    record = session.call.record
    if not record.fallback_url:
        return None
    params = fallback(extra, error_code=failed.code, error_url=failed.url)
    got = await _document(session, record.fallback_url, record.fallback_method, params)
    return got if isinstance(got, Found) else None


async def _document(session: Session, url: str, method: str, extra: Params) -> Found | _Failed:
    for code, text in split(url)[1].problems:
        session.alert_once(code, text)
    got = await session.wait(request(session, url, method, extra))
    if isinstance(got, _Failed):
        return got
    answer, attempt = got
    return _read(session, answer.body, answer.content_type, answer.url, attempt)


async def may_ask(session: Session) -> None:
    """Wait while another node may have the call, and asks itself."""
    gate = session.services.gate
    while gate is not None and not gate.open:  # noqa: ASYNC110 - a deadline has no event
        await asyncio.sleep(GATE_LOOK_S)


async def request(session: Session, url: str, method: str, extra: Params) -> tuple[Answer, Attempt] | _Failed:
    """Request a URL with the standard parameters and `extra`; what fails has raised its alert."""
    call, services = session.call, session.services
    await may_ask(session)
    account = services.directory.account(call.account.sid) or call.account  # its token may have been changed meanwhile
    standard = parameters.standard(call.record, _status(call.status), **services.places(call.record))
    if call.record.answered_by:
        standard = parameters.detected(call.record, standard)
    token = idempotency_token(call.sid, f"document/{session.position.documents}/{session.position.verbs}/{url}")
    trace = call.record.traceparent
    outcome = await services.fetcher.fetch(
        FetchRequest(
            url=url, secret=account.auth_token, method=method, params=[*standard, *extra], idempotency_token=token,
            verify_tls=account.verify_tls, audio=True, cache_scope=account.sid, session=session.web,
            headers=((HEADER, trace),) if trace else (),
        )
    )  # fmt: skip
    for attempt in outcome.attempts:
        _note(call, attempt)
    last = outcome.attempts[-1]
    if outcome.error_code or outcome.answer is None:
        code = outcome.error_code or HTTP_RETRIEVAL_FAILURE
        _alert(session, code, outcome.error, last)
        return _Failed(code, last.url)
    return outcome.answer, last


def _note(call: LiveCall, attempt: Attempt) -> None:
    """One request in the timeline; its details are shaped as an Attempt, for the API's Events."""
    result = attempt.status or attempt.error
    details: dict[str, Any] = {
        "url": attempt.url, "method": attempt.method, "started_ms": attempt.started_ms, "status": attempt.status,
        "total_ms": round(attempt.total_ms, 1), "params": attempt.params,
        "response_body": timeline.masked(attempt.response_body[:MAX_SHOWN_BODY]),
    }  # fmt: skip
    if attempt.error_code:
        details |= {"error_code": attempt.error_code, "error": attempt.error, "failure": attempt.failure}
    line = f"{attempt.method} {attempt.url} {result} in {attempt.total_ms:.0f} ms"
    call.note(timeline.WEBHOOK, line, **details)


def _status(status: Status) -> str:
    """`CallStatus` of a request for TwiML."""
    return Status.QUEUED if status is Status.INITIATED else status


def again(session: Session, saved: DocumentCheckpoint) -> Found:
    """The document that a lost process ran; it parsed before."""
    found = _read(session, saved.body, saved.content_type, saved.url, None, quiet=True)
    return found if isinstance(found, Found) else Found((), saved.url)


def _is_audio(content_type: str) -> bool:
    return content_type.lower().startswith("audio/")


def _read(
    session: Session, body: bytes, content_type: str, url: str, attempt: Attempt | None, *, quiet: bool = False
) -> Found | _Failed:
    """The verbs of an answer."""
    limit = session.services.settings.webhooks.response_bytes
    session.audio = None
    if _is_audio(content_type):
        if attempt is not None and 0 < len(body) < limit:  # all of it; else it is fetched again, to be played
            session.audio = url, body, content_type
        return Found((Play(url=url),), url, content_type)
    result = _parse(body, content_type, limit)
    if isinstance(result, TwimlError):
        place = f" (line {result.line}, column {result.column})" if result.line else ""
        if not quiet:
            _alert(session, result.code, result.message + place, attempt)
        return _Failed(result.code, attempt.url if attempt is not None else url)
    if not quiet:
        for warning in result.warnings[:MAX_WARNINGS]:
            place = f" (line {warning.line}, column {warning.column})" if warning.line else ""
            _alert(session, warning.code, warning.message + place, attempt)
    return Found(result.verbs, url, content_type, body)


def _parse(body: bytes, content_type: str, limit: int) -> Document | TwimlError:
    return (_kept if len(body) <= CACHED_BYTES else _fresh)(body, content_type, limit)


def _fresh(body: bytes, content_type: str, limit: int) -> Document | TwimlError:
    result = parse(body, content_type, kind=DocumentKind.VOICE, verbs=SPECS, limit_bytes=limit)
    plain = encoding.media_type(content_type) == encoding.PLAIN_TYPE
    if plain and isinstance(result, TwimlError) and result.code in _UNPARSED:
        try:
            return Document((Say(text=encoding.decode(body, content_type).strip()),))
        except encoding.UnsupportedEncoding:
            return result
    return result


_kept = lru_cache(maxsize=CACHED_DOCUMENTS)(_fresh)


def _alert(session: Session, code: int, text: str, attempt: Attempt | None) -> None:
    if attempt is None:
        session.alert(code, text)
        return
    session.alert(
        code,
        text,
        request_method=attempt.method,
        request_url=timeline.masked(attempt.url),
        request_variables=encode_form(attempt.params),
        request_headers=encode_form(attempt.request_headers.items()),
        response_body=timeline.masked(attempt.response_body),
        response_headers=encode_form(attempt.response_headers.items()),
    )


__all__ = ["Found", "Goto", "again", "load", "request"]
