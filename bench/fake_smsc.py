"""An SMSC for benchmarks: one process that counts messages by the key in their text (`K=<key>`). It is on 127.0.0.1,
unless `--host` tells otherwise.

    python bench/fake_smsc.py [--port 0] [--control-port 0] [--latency-ms 5] [--receipt-delay-ms 100] ...

Prints one JSON line with both ports, then serves until SIGTERM. The control port speaks HTTP, everything by GET:

    /stats                          counters, keys seen, sessions
    /times                          key -> [monotonic ns of its first submit, times taken]
    /set?NAME=VALUE&...             change any option while running (`latency_ms=20&throttle_per_s=500`)
    /drop                           cut every connection
    /reset                          forget keys and counters
    /send?n=1&from=1555&to=1202&text=hi   messages from a handset, to a bound receiver

Faults: `throttle_per_s` (above it ESME_RTHROTTLED), `throttle_share`, `full_share` (ESME_RMSGQFUL), `silent_share`
(taken, never answered), `drop_every` (after so many submits the connection is cut: `drop_taken` 1 means the message
was taken and only its answer is lost), `refuse_binds_s` after each cut, `undelivered_share` of the receipts. Shares
are between 0 and 1. Receipts that find nobody bound wait for the next bind.
"""

import argparse
import asyncio
import contextlib
import json
import random
import re
import signal
import struct
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qsl, urlsplit

HEADER = struct.Struct(">IIII")
BIND_RX, BIND_TX, SUBMIT, DELIVER, UNBIND, BIND_TRX, ENQUIRE = 1, 2, 4, 5, 6, 9, 0x15
RESPONSE = 0x80000000
THROTTLED, QUEUE_FULL, BIND_FAILED, NOT_BOUND, UNKNOWN_COMMAND = 0x58, 0x14, 0x0D, 0x04, 0x03
RECEIPT_WINDOW = 500
MAX_PDU = 70_000
KEY = re.compile(rb"K=([\w.-]+)")


@dataclass
class Options:
    """What the SMSC does; see the module."""

    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    latency_ms: float = 0.0
    receipts: int = 1
    receipt_delay_ms: float = 0.0
    undelivered_share: float = 0.0
    throttle_per_s: float = 0.0
    throttle_share: float = 0.0
    full_share: float = 0.0
    silent_share: float = 0.0
    drop_every: int = 0
    drop_taken: int = 1
    refuse_binds_s: float = 0.0


@dataclass
class State:
    """All that the sessions share."""

    options: Options
    seen: dict[str, list[int]] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)
    sessions: set["Session"] = field(default_factory=set)
    waiting: deque[tuple[bytes, bool]] = field(default_factory=deque)
    """(body, is a receipt) of deliver_sm that wait for a receiver with room."""
    next_id: int = int(time.time()) * 1000
    submits: int = 0
    refuse_until: float = 0.0
    tokens: float = 0.0
    filled: float = 0.0

    def verdict(self) -> int:
        """The status of the next submit; 0 takes it."""
        options = self.options
        if options.throttle_per_s:
            now = time.monotonic()
            burst = max(1.0, options.throttle_per_s / 10)
            self.tokens = min(burst, self.tokens + (now - self.filled) * options.throttle_per_s)
            self.filled = now
            if self.tokens < 1:
                return THROTTLED
            self.tokens -= 1
        if options.throttle_share and random.random() < options.throttle_share:
            return THROTTLED
        if options.full_share and random.random() < options.full_share:
            return QUEUE_FULL
        return 0

    def spread(self) -> None:
        """Hand what waits to receivers with room."""
        for session in self.sessions:
            while self.waiting and session.receives and len(session.unanswered) < RECEIPT_WINDOW:
                session.deliver(*self.waiting.popleft())


class Session(asyncio.Protocol):
    """One ESME's connection."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.kind = 0
        self.held = b""
        self.out: list[bytes] = []
        self.flushing = False
        self.sequence = 0
        self.unanswered: dict[int, tuple[bytes, bool]] = {}
        self.loop = asyncio.get_running_loop()

    @property
    def receives(self) -> bool:
        return self.kind in (BIND_RX, BIND_TRX) and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.state.count["connections"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.sessions.discard(self)
        self.state.waiting.extend(self.unanswered.values())
        self.state.spread()

    def data_received(self, data: bytes) -> None:
        data = self.held + data if self.held else data
        at, size = 0, len(data)
        while size - at >= 16:
            length, command, status, sequence = HEADER.unpack_from(data, at)
            if not 16 <= length <= MAX_PDU:
                self.transport.abort()
                return
            if at + length > size:
                break
            self.handle(command, status, sequence, data, at + 16, at + length)
            if self.transport.is_closing():
                return
            at += length
        self.held = data[at:]
        self.flush()

    def write(self, command: int, status: int, sequence: int, body: bytes = b"") -> None:
        self.out.append(HEADER.pack(16 + len(body), command, status, sequence) + body)
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        self.flushing = False
        if self.out and not self.transport.is_closing():
            self.transport.write(b"".join(self.out))
        self.out.clear()

    def handle(self, command: int, status: int, sequence: int, data: bytes, at: int, end: int) -> None:
        if command == SUBMIT:
            self.submit(sequence, data, at, end)
        elif command == DELIVER | RESPONSE:
            self.answered(status, sequence)
        elif command == ENQUIRE:
            self.write(command | RESPONSE, 0, sequence)
        elif command in (BIND_RX, BIND_TX, BIND_TRX):
            refused = time.monotonic() < self.state.refuse_until
            self.write(command | RESPONSE, BIND_FAILED if refused else 0, sequence, b"" if refused else b"fake\0")
            if not refused:
                self.kind = command
                self.state.sessions.add(self)
                self.state.count["binds"] += 1
                self.state.spread()
        elif command == UNBIND:
            self.write(command | RESPONSE, 0, sequence)
            self.flush()
            self.transport.close()
        elif not command & RESPONSE:
            self.write(RESPONSE, UNKNOWN_COMMAND, sequence)

    def submit(self, sequence: int, data: bytes, at: int, end: int) -> None:
        state, options = self.state, self.state.options
        state.count["submits"] += 1
        status = state.verdict() if self.kind in (BIND_TX, BIND_TRX) else NOT_BOUND
        if status:
            state.count[f"refused_0x{status:02X}"] += 1
            self.write(SUBMIT | RESPONSE, status, sequence)
            return
        state.submits += 1
        cut = bool(options.drop_every) and state.submits % options.drop_every == 0
        if not cut or options.drop_taken:
            self.take(sequence, data, at, end, lost=cut)
        if cut:
            state.count["cuts"] += 1
            state.refuse_until = time.monotonic() + options.refuse_binds_s
            self.flush()
            self.transport.abort()

    def take(self, sequence: int, data: bytes, at: int, end: int, *, lost: bool) -> None:
        state, options = self.state, self.state.options
        state.count["taken"] += 1
        source = data.index(0, at) + 1
        source_end = data.index(0, source + 2) + 1
        destination_end = data.index(0, source_end + 2) + 1
        asked = self.note(data, source, source_end, destination_end, end)
        if lost or (options.silent_share and random.random() < options.silent_share):
            state.count["answers_lost"] += 1
            return
        state.next_id += 1
        # A receipt goes from the handset to the sender.
        addresses = data[source_end:destination_end] + data[source:source_end]
        arguments = (sequence, b"%d" % state.next_id, addresses if asked else b"")
        if options.latency_ms:
            self.loop.call_later(options.latency_ms / 1000, self.answer, *arguments)
        else:
            self.answer(*arguments)

    def note(self, data: bytes, source: int, source_end: int, destination_end: int, end: int) -> bool:
        """Count the message by its key; whether it asks for a receipt."""
        schedule_end = data.index(0, destination_end + 3) + 1
        fixed = data.index(0, schedule_end) + 1  # registered_delivery, replace, data_coding, default id, sm_length
        text = data[fixed + 5 : end]
        if data[fixed + 2] == 8:
            text = text.replace(b"\0", b"")
        found = KEY.search(text)
        if found is None:
            self.state.count["without_key"] += 1
        else:
            entry = self.state.seen.setdefault(found[1].decode(), [time.monotonic_ns(), 0])
            entry[1] += 1
            if entry[1] > 1:
                self.state.count["repeated"] += 1
        return bool(data[fixed] & 3)

    def answer(self, sequence: int, message_id: bytes, receipt_to: bytes) -> None:
        self.write(SUBMIT | RESPONSE, 0, sequence, message_id + b"\0")
        options = self.state.options
        if receipt_to and options.receipts:
            bad = options.undelivered_share and random.random() < options.undelivered_share
            body = receipt(receipt_to, message_id, bad=bool(bad))
            if options.receipt_delay_ms:
                self.loop.call_later(options.receipt_delay_ms / 1000, self.send, body, True)
            else:
                self.send(body, True)

    def send(self, body: bytes, is_receipt: bool) -> None:
        if self.receives and len(self.unanswered) < RECEIPT_WINDOW:
            self.deliver(body, is_receipt)
        else:
            self.state.waiting.append((body, is_receipt))
            self.state.spread()

    def deliver(self, body: bytes, is_receipt: bool) -> None:
        self.sequence = self.sequence % 0x7FFFFFFF + 1
        self.unanswered[self.sequence] = (body, is_receipt)
        self.state.count["receipts_sent" if is_receipt else "messages_sent"] += 1
        self.write(DELIVER, 0, self.sequence, body)

    def answered(self, status: int, sequence: int) -> None:
        sent = self.unanswered.pop(sequence, None)
        if sent is None:
            return
        if status:
            self.state.count["not_kept"] += 1
            self.loop.call_later(1.0, self.send, *sent)
        else:
            self.state.count["receipts_kept" if sent[1] else "messages_kept"] += 1
        if self.state.waiting:
            self.state.spread()


def deliver_body(addresses: bytes, esm_class: int, text: bytes) -> bytes:
    return b"\0" + addresses + bytes((esm_class, 0, 0, 0, 0, 0, 0, 0, 0, len(text))) + text


def receipt(addresses: bytes, message_id: bytes, *, bad: bool) -> bytes:
    date = time.strftime("%y%m%d%H%M").encode()
    stat, err, state = (b"UNDELIV", b"001", 5) if bad else (b"DELIVRD", b"000", 2)
    text = b"id:%s sub:001 dlvrd:00%d submit date:%s done date:%s stat:%s err:%s text:" % (
        message_id, not bad, date, date, stat, err,
    )  # fmt: skip
    tlvs = struct.pack(">HH", 0x1E, len(message_id) + 1) + message_id + b"\0" + struct.pack(">HHB", 0x427, 1, state)
    return deliver_body(addresses, 4, text) + tlvs


class Control:
    """The control port."""

    def __init__(self, state: State) -> None:
        self.state = state

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            line = await reader.readline()
            while (await reader.readline()).strip():
                pass
            target = urlsplit(line.decode().split(" ")[1])
            body = json.dumps(self.answer(target.path, dict(parse_qsl(target.query)))).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()

    def answer(self, path: str, query: dict[str, str]) -> dict[str, object]:
        state = self.state
        if path == "/set":
            for name, value in query.items():
                setattr(state.options, name, type(getattr(state.options, name))(float(value)))
            state.tokens, state.filled = 0.0, time.monotonic()
        elif path == "/drop":
            for session in list(state.sessions):
                session.transport.abort()
        elif path == "/reset":
            state.seen.clear()
            state.count.clear()
        elif path == "/send":
            one = [b"\1\1" + query.get(name, "15555550123").encode() + b"\0" for name in ("from", "to")]
            body = deliver_body(b"".join(one), 0, query.get("text", "hello").encode()[:160])
            state.waiting.extend([(body, False)] * int(query.get("n", "1")))
            state.spread()
        elif path == "/times":
            return dict(state.seen)
        unanswered = sum(len(session.unanswered) for session in state.sessions)
        return {
            "keys": len(state.seen),
            "sessions": len(state.sessions),
            "waiting": len(state.waiting) + unanswered,
            **state.count,
        }


async def serve(options: Options) -> None:
    loop = asyncio.get_running_loop()
    state = State(options)
    smsc = await loop.create_server(lambda: Session(state), options.host, options.port)
    control = await asyncio.start_server(Control(state).serve, options.host, options.control_port)
    ports = {"port": smsc.sockets[0].getsockname()[1], "control_port": control.sockets[0].getsockname()[1]}
    print(json.dumps(ports), flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    for session in list(state.sessions):
        session.transport.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in vars(Options()).items():
        parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value)
    options = Options(**vars(parser.parse_args()))
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(options))
    else:
        uvloop.run(serve(options))


if __name__ == "__main__":
    main()
