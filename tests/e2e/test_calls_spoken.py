"""Real speech over IPv6: what the engines say is heard, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.voice_app import response
from trunkline.testing.local import Local
from trunkline.testing.phones.client import NotHeard


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    folder: Path = tmp_path_factory.mktemp("spoken")
    settings = {"TRUNKLINE_SPEECH_ENGINE": "auto", "TRUNKLINE_SIP_HOST": "::1"}
    with Local(folder, settings) as local:
        yield local


def test_english_and_german(local: Local) -> None:
    phone = local.phone()
    said = (
        "<Say>Press one for sales. Press two for support.</Say>",
        "<Say language='de-DE'>Guten Tag, wie geht es Ihnen?</Say>",
        "<Say voice='man' language='en-GB'>Goodbye then.</Say>",
    )
    local.client.calls.create(to=phone.number, from_=local.number, twiml=response(*said))
    call = phone.answers()
    assert local.simulator("GET", "/_simulator/phones")["platform"][0] == "::1"
    call.hears("Press two for support.")  # a sentence among others, by the neural voice
    call.hears("Guten Tag, wie geht es Ihnen?", language="de-DE")
    call.hears("Goodbye then.", voice="man", language="en-GB")
    call.ended()


def test_another_text_is_not_heard(local: Local) -> None:
    phone = local.phone()
    local.client.calls.create(
        to=phone.number, from_=local.number, twiml=response("<Say>Press one for sales.</Say>", "<Pause length='30'/>")
    )
    call = phone.answers()
    with pytest.raises(NotHeard, match="best match"):
        call.hears("Press two for sales.", timeout_s=4)
    call.hears("Press one for sales.")  # it was there all the time
    call.hangs_up()
