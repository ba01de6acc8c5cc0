"""The media tick's inner loops: compiled on demand, with a fallback that does the same."""

import logging
import os
from typing import Final

from trunkline.media.native.build import BuildFailed, library
from trunkline.media.native.compiled import Compiled
from trunkline.media.native.fallback import Fallback
from trunkline.media.native.interface import Helper

logger = logging.getLogger(__name__)

CHOICE: Final = "TRUNKLINE_MEDIA_HELPER"
"""Environment variable: `compiled` (fail without it), `fallback`, or `auto`, the default."""


def load(choice: str = "") -> Helper:
    """The helper to use. Raises BuildFailed when `compiled` is asked for and cannot be had."""
    choice = choice or os.environ.get(CHOICE, "auto")
    if choice == "fallback":
        return Fallback()
    try:
        return _compiled()
    except BuildFailed as error:
        if choice == "compiled":
            raise
        logger.warning("the media process runs without its compiled helper: %s", error)
        return Fallback()


def _compiled() -> Helper:
    try:
        return Compiled(library())
    except OSError as error:
        raise BuildFailed(str(error)) from error
