"""The table of verbs has every file, and every verb of Twilio's."""

from importlib import import_module
from pathlib import Path

import pytest

from trunkline.twiml import DocumentKind
from trunkline.twiml.verbs import VOICE_NAMES
from trunkline.voice import verbs
from trunkline.voice.verbs import SPECS, VERBS

FILES = sorted(path.stem for path in Path(verbs.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_verbs_is_in_the_table(name: str) -> None:
    module = import_module(f"trunkline.voice.verbs.{name}")
    specs = [*getattr(module, "SPECS", ()), *([module.SPEC] if hasattr(module, "SPEC") else [])]
    missing = [spec.name for spec in specs if DocumentKind.VOICE in spec.kinds and SPECS.get(spec.name) is not spec]
    assert not missing


def test_every_verb_of_twilios_is_known() -> None:
    assert VERBS.keys() >= VOICE_NAMES


@pytest.mark.parametrize("name", VERBS)
def test_a_record_is_named_as_its_element(name: str) -> None:
    spec = VERBS[name].spec
    assert spec.name == name
    assert DocumentKind.VOICE in spec.kinds
