"""The worker processes for audio files and speech: `python -m trunkline.media.audio_worker FD SETUP`.

Started by `trunkline.media.worker_client`, one request at a time, ended when the other side of their socket is. They
keep FFmpeg, onnxruntime and NumPy out of the serving process, and whatever a hostile file does to a decoder stays in
here: memory is bounded by RLIMIT_AS, file sizes by RLIMIT_FSIZE, time by the client, which kills a worker that takes
longer. A worker that dies costs the request it was at, nothing else.
"""

import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from trunkline.media.worker_wire import AUDIO, HEADER, MAX_FRAME, SPEECH, Reply, Request, Setup, decode_request, frame

NICENESS: Final = 5
"""Calls go first."""
MAX_FILE_BYTES: Final = 256 * 1024 * 1024
"""Largest file that a worker may write."""
Operations = dict[str, Callable[..., Any]]


def _audio_operations(_setup: Setup) -> Operations:
    from trunkline.media import audio_file

    def decode(source: str, target: str, content_type: str = "", max_ms: int = audio_file.MAX_AUDIO_MS) -> Any:
        return audio_file.decode(Path(source), Path(target), content_type=content_type, max_ms=max_ms)

    def to_mp3(source: str, target: str) -> int:
        return audio_file.to_mp3(Path(source), Path(target))

    def convert(source: str, target: str, form: str, channels: int) -> int:
        from trunkline.media import recording_file

        return recording_file.convert(Path(source), Path(target), form=form, channels=channels)

    return {"decode": decode, "to_mp3": to_mp3, "convert": convert}


def _speech_operations(setup: Setup) -> Operations:
    from trunkline.media.speech.speaker import Speaker

    speaker = Speaker(setup.engine)
    if setup.warm:
        speaker.warm()

    def speak(text: str, target: str, voice: str = "", language: str = "") -> Any:
        return speaker.speak_to(Path(target), text, voice=voice, language=language)

    return {"speak": speak}


ROLES: Final[dict[str, Callable[[Setup], Operations]]] = {AUDIO: _audio_operations, SPEECH: _speech_operations}
"""The roles; each imports only what it needs."""
EXPECTED: Final = frozenset({"Unreadable", "CannotSpeak", "FileNotFoundError", "OSError"})
"""Names of exceptions that say something about the request; others are told on stderr too."""


class Worker:
    """Serves requests from one socket."""

    def __init__(self, operations: Operations, peer: socket.socket) -> None:
        self._operations = operations
        self._peer = peer

    def run(self) -> None:
        """Serve until the peer closes."""
        while (header := self._exactly(HEADER)) is not None:
            length = int.from_bytes(header, "big")
            body = self._exactly(length) if length <= MAX_FRAME else None
            if body is None:
                return
            try:
                self._peer.sendall(frame(self._answer(decode_request(body))))
            except OSError:
                return  # the other side is gone

    def _exactly(self, length: int) -> bytes | None:
        data = bytearray()
        while len(data) < length:
            try:
                chunk = self._peer.recv(length - len(data))
            except ConnectionResetError:
                return None
            if not chunk:
                return None
            data += chunk
        return bytes(data)

    def _answer(self, request: Request) -> Reply:
        try:
            result = self._operations[request.op](**request.args)
            return Reply(request.id, result=msgspec.to_builtins(result))
        except MemoryError:
            return Reply(request.id, error="out of memory", kind="MemoryError")
        except Exception as error:
            kind = type(error).__name__
            if kind not in EXPECTED:
                traceback.print_exc()
            return Reply(request.id, error=(str(error) or kind)[:1000], kind=kind)


def limit(setup: Setup) -> None:
    """Bound what this process may take."""
    resource.setrlimit(resource.RLIMIT_AS, (setup.memory_bytes, setup.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    os.nice(NICENESS)


def main(arguments: list[str]) -> None:
    """Arguments: the number of the inherited socket, and a `Setup` as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: our parent ends us in order
    peer = socket.socket(fileno=int(arguments[0]))
    setup = msgspec.json.decode(arguments[1], type=Setup)
    limit(setup)
    Worker(ROLES[setup.role](setup), peer).run()
    peer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
