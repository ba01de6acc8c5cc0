"""Requests of which nothing has been done yet, by keys in their ASGI scope.

While a request waits for the rest of its body, or for another node that is to answer it, whoever replaces this process
may answer it from its beginning instead (trunkline.bootstrap_handover): its connection and what has come of it are
passed on, and the task that waits is cancelled.
"""

from typing import Final

HELD: Final = "trunkline.held"
"""The asyncio task that waits; absent as soon as something may have been done."""
PARTS: Final = "trunkline.parts"
"""What it has read of the body (bytes or bytearray); absent: nothing."""
MOVED: Final = "trunkline.moved"
"""Set before the task is cancelled: another process answers, nothing is to be said here."""
ANSWER: Final = "trunkline.answer"
"""An ASGI extension (of trunkline.listeners.lean_http), and the type of its message: `status`, `headers` (with names in
lower case, and `content-length`) and `body` at once."""
