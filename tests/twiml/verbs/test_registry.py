"""Every verb's file stands in the table, and the table says what the SDK can write."""

from __future__ import annotations

import importlib
import pkgutil

from twilio.twiml.messaging_response import Message as SdkMessage
from twilio.twiml.messaging_response import MessagingResponse
from twilio.twiml.voice_response import VoiceResponse

from trunkline.twiml import VERBS, DocumentKind, verbs
from trunkline.twiml.verbs import VOICE_NAMES


def test_every_file_is_in_the_table() -> None:
    listed = {spec for table in VERBS.values() for spec in map(id, table.values())}
    for module in pkgutil.iter_modules(verbs.__path__):
        spec = importlib.import_module(f"{verbs.__name__}.{module.name}").SPEC
        assert id(spec) in listed, f"{module.name} is not in VERBS"


def test_the_messaging_table_is_the_sdks() -> None:
    # The SDK has one builder method a verb: what it can write, we must know.
    written = {name for name in ("Message", "Redirect") if hasattr(MessagingResponse, name.lower())}
    assert set(VERBS[DocumentKind.MESSAGING]) == written
    message = VERBS[DocumentKind.MESSAGING]["Message"]
    assert {name.lower() for name in message.children} == {n for n in ("body", "media") if hasattr(SdkMessage, n)}


def test_voice_names_are_the_sdks() -> None:
    builders = {name.replace("_", "") for name in vars(VoiceResponse) if not name.startswith("__")}
    missing = {name for name in VOICE_NAMES if name.lower() not in builders}
    assert missing == set()
