"""What the server writes to standard error: JSON lines, or lines for people."""

import logging
import sys
import time
from typing import Any

import orjson

from trunkline.settings import Log

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
MAX_TEXT_CHARS = 8192
"""Longest message or traceback of one line."""
OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""What every record has, and uvicorn's coloured copy of the message; anything else was given as `extra`."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, the `extra` fields, and the error."""

    def format(self, record: logging.LogRecord) -> str:
        seconds, rest = divmod(record.created, 1)
        line: dict[str, Any] = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(rest * 1000):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MAX_TEXT_CHARS],
        }
        line |= {name: value for name, value in vars(record).items() if name not in OWN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)[-MAX_TEXT_CHARS:]
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def configure(settings: Log) -> None:
    """Send every logger's lines to standard error, as the settings say."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=LEVELS[settings.level], handlers=[handler], force=True)
