"""The server's log lines."""

import json
import logging
import re
from collections.abc import Iterator

import pytest

from trunkline.cli.log import MAX_TEXT_CHARS, configure
from trunkline.settings import Log


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Log(format="json"))
    logger = logging.getLogger("trunkline.test")
    logger.debug("not written")
    logger.info("bound to %s\nsecond line", "acme", extra={"connector": "acme", "odd": object})
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logger.exception("x" * 2 * MAX_TEXT_CHARS)
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first.pop("odd") == str(object)
    assert first == {
        "level": "info",
        "logger": "trunkline.test",
        "message": "bound to acme\nsecond line",
        "connector": "acme",
    }
    assert len(second["message"]) == MAX_TEXT_CHARS
    assert second["error"].endswith("ZeroDivisionError")


def test_lines_for_people_and_levels(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Log(format="console", level="error"))
    logging.getLogger("a").warning("not written")
    logging.getLogger("a").error("down")
    assert re.fullmatch(r"\d\d:\d\d:\d\d ERROR   a: down\n", capsys.readouterr().err)
