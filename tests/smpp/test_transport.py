import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import smpp34
import uvloop

from trunkline.smpp import codec, events, transport
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import ConnectError, WindowFullError
from trunkline.smpp.session import Limits, State
from trunkline.smpp.transport import Connection, Handler, Listener

LOCALHOST = "127.0.0.1"
BIND = p.BindTransceiver(system_id="me", password="secret")
SUBMIT = p.SubmitSm(source="12345", destination="15550002", message=b"hello")
DELIVER = p.DeliverSm(source="15550002", destination="12345", message=b"hi")


class Smsc(Handler):
    """Accepts the right password and answers every submit_sm with a counter."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.messages: list[bytes] = []
        self.bound = asyncio.Event()
        self.reason = asyncio.get_running_loop().create_future()

    def on_bind_request(self, connection: Connection, sequence: int, pdu: p.Bind) -> None:
        if pdu.password != "secret":
            connection.refuse_bind(sequence, c.ESME_RINVPASWD)
            return
        connection.accept_bind(sequence, "smsc")
        self.connection = connection
        self.bound.set()

    def on_request(self, connection: Connection, sequence: int, pdu: p.Request) -> None:
        assert isinstance(pdu, p.SubmitSm)
        if pdu.message == b"raise":
            raise RuntimeError("handler fault")
        self.messages.append(pdu.payload)
        connection.respond(sequence, message_id=str(len(self.messages)))

    def on_closed(self, connection: Connection, reason: str) -> None:
        self.reason.set_result(reason)


class Esme(Handler):
    """Collects what is delivered, and leaves acknowledging to the test."""

    def __init__(self) -> None:
        self.delivered: asyncio.Queue[tuple[int, p.Request]] = asyncio.Queue()
        self.room = asyncio.Event()
        self.reasons: list[str] = []

    def on_request(self, connection: Connection, sequence: int, pdu: p.Request) -> None:
        self.delivered.put_nowait((sequence, pdu))

    def on_room(self, connection: Connection) -> None:
        self.room.set()

    def on_closed(self, connection: Connection, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
async def smsc() -> Smsc:
    return Smsc()


@pytest.fixture
async def listener(smsc: Smsc) -> AsyncIterator[Listener]:
    listening = await transport.listen(LOCALHOST, 0, lambda: smsc)
    yield listening
    await listening.close(1.0)
    assert not listening.connections


async def soon(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, 60)


async def test_submit_deliver_and_goodbye(listener: Listener, smsc: Smsc) -> None:
    esme = Esme()
    connection = await transport.connect(LOCALHOST, listener.port, BIND, esme)
    assert connection.bound
    outcome = await soon(connection.request(SUBMIT))
    assert outcome.pdu == p.SubmitSmResp(message_id="1")
    assert smsc.messages == [b"hello"]

    assert smsc.connection is not None
    acknowledged = smsc.connection.request(DELIVER)
    sequence, pdu = await soon(esme.delivered.get())
    assert pdu == DELIVER
    assert not acknowledged.done()
    assert connection.respond(sequence)
    assert (await soon(acknowledged)).pdu == p.DeliverSmResp()

    connection.close()
    assert await soon(connection.closed) == "unbound"
    assert await soon(smsc.reason) == "unbound"
    assert len(esme.reasons) == 1


async def test_callbacks_get_their_context_and_room_is_signalled(listener: Listener, smsc: Smsc) -> None:
    esme = Esme()
    connection = await transport.connect(LOCALHOST, listener.port, BIND, esme, limits=Limits(window=4))
    seen: list[tuple[Any, str]] = []

    def callback(context: Any, outcome: transport.Outcome) -> None:
        assert isinstance(outcome, events.ResponseReceived)
        seen.append((context, outcome.pdu.message_id))  # type: ignore[attr-defined]

    number = 0
    while number < 100:
        while connection.room and number < 100:
            connection.submit(SUBMIT, callback, number)
            number += 1
        esme.room.clear()
        if number < 100:
            await soon(esme.room.wait())
    await soon(connection.request(SUBMIT)) if connection.room else await soon(esme.room.wait())
    assert seen[:96] == [(n, str(n + 1)) for n in range(96)]
    connection.close()
    await soon(connection.closed)
    assert len(seen) == 100


async def test_what_is_queued_in_one_pass_is_one_write(listener: Listener, smsc: Smsc) -> None:
    connection = await transport.connect(LOCALHOST, listener.port, BIND, Esme())
    inner = connection._transport
    assert inner is not None
    writes: list[bytes] = []

    class Recorder:
        def write(self, data: bytes) -> None:
            writes.append(data)
            inner.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    connection._transport = Recorder()  # type: ignore[assignment]
    futures = [connection.request(SUBMIT) for _ in range(5)]
    await soon(asyncio.gather(*futures))
    assert [len(data) for data in writes] == [5 * len(codec.encode(SUBMIT, 1))]
    connection.close()
    await soon(connection.closed)


async def test_a_refused_bind_tells_its_status(listener: Listener) -> None:
    with pytest.raises(ConnectError) as caught:
        await soon(transport.connect(LOCALHOST, listener.port, p.BindTransceiver(password="wrong"), Esme()))
    assert caught.value.status == c.ESME_RINVPASWD


async def test_nobody_listens() -> None:
    server = await asyncio.start_server(lambda r, w: None, LOCALHOST, 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectError) as caught:
        await soon(transport.connect(LOCALHOST, port, BIND, Esme()))
    assert caught.value.status is None


async def test_a_peer_that_never_answers_the_bind() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, LOCALHOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectError, match="not bound in time"):
            await soon(transport.connect(LOCALHOST, port, BIND, Esme(), limits=Limits(bind_timeout_s=0.05)))


async def test_a_half_open_connection_is_dropped_before_the_bind(smsc: Smsc) -> None:
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc, limits=Limits(bind_timeout_s=0.05))
    reader, writer = await asyncio.open_connection(LOCALHOST, listener.port)
    assert await soon(reader.read()) == b""
    assert await soon(smsc.reason) == "not bound in time"
    writer.close()
    await listener.close()


async def test_garbage_is_nacked_and_closed(listener: Listener, smsc: Smsc) -> None:
    reader, writer = await asyncio.open_connection(LOCALHOST, listener.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await soon(reader.read())
    assert codec.HEADER.unpack(answer)[:3] == (16, c.GENERIC_NACK, c.ESME_RINVCMDLEN)
    assert "not SMPP" in await soon(smsc.reason)
    writer.close()


async def test_response_timeout_reaches_the_callback(smsc: Smsc) -> None:
    smsc.on_request = lambda *_: None  # type: ignore[method-assign,assignment]
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc)
    limits = Limits(response_timeout_s=0.05)
    connection = await transport.connect(LOCALHOST, listener.port, BIND, Esme(), limits=limits)
    outcome = await soon(connection.request(SUBMIT))
    assert isinstance(outcome, events.RequestFailed)
    assert outcome.reason == "timeout"
    connection.abort()
    await listener.close()


async def test_whoever_was_held_up_by_a_silence_is_told_of_its_end(smsc: Smsc) -> None:
    smsc.on_request = lambda *_: None  # type: ignore[method-assign,assignment]
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc)
    esme = Esme()
    limits = Limits(response_timeout_s=0.05)
    connection = await transport.connect(LOCALHOST, listener.port, BIND, esme, limits=limits)
    connection.submit(SUBMIT, lambda *_: None)
    await soon(esme.room.wait())  # it has answered enquire_link
    assert connection.room == limits.window
    connection.abort()
    await listener.close()


async def test_a_peer_that_has_fallen_silent_is_left_by_a_reset() -> None:
    ended = asyncio.get_running_loop().create_future()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(codec.encode(p.BindTransceiverResp(system_id="smsc"), 1))
        try:
            while await reader.read(1000):
                pass
            ended.set_result(None)
        except ConnectionError as error:
            ended.set_result(error)
        writer.close()

    async with await asyncio.start_server(mute, LOCALHOST, 0) as server:
        limits = Limits(response_timeout_s=0.05, enquire_link_timeout_s=0.05)
        port = server.sockets[0].getsockname()[1]
        connection = await transport.connect(LOCALHOST, port, BIND, Esme(), limits=limits)
        connection.submit(SUBMIT, lambda *_: None)
        assert "silent" in await soon(connection.closed)
        assert isinstance(await soon(ended), ConnectionResetError)


async def test_a_dropped_connection_fails_what_is_outstanding(smsc: Smsc) -> None:
    smsc.on_request = lambda connection, *_: connection.abort("dropped")  # type: ignore[method-assign,assignment]
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc)
    esme = Esme()
    connection = await transport.connect(LOCALHOST, listener.port, BIND, esme)
    outcome = await soon(connection.request(SUBMIT))
    assert isinstance(outcome, events.RequestFailed)
    assert outcome.reason == "closed"
    await soon(connection.closed)
    assert connection.state is State.CLOSED
    assert connection.room == 0
    assert not connection.respond(1)
    await listener.close()


async def test_what_a_gate_holds_back_goes_when_it_opens(listener: Listener, smsc: Smsc) -> None:
    shut: list[bool] = []
    connection = await transport.connect(LOCALHOST, listener.port, BIND, Esme(), gate=lambda: not shut)
    shut.append(True)
    outcomes = [connection.request(SUBMIT) for _ in range(3)]
    asked = asyncio.Event()
    connection.gate = lambda: asked.set() or not shut  # type: ignore[func-returns-value]
    await soon(asked.wait())
    assert smsc.messages == []
    assert not any(outcome.done() for outcome in outcomes)
    shut.clear()
    assert [(await soon(outcome)).pdu.message_id for outcome in outcomes] == ["1", "2", "3"]
    connection.abort()


async def test_an_end_behind_a_gate_is_without_a_word(listener: Listener, smsc: Smsc) -> None:
    limits = Limits(unbind_timeout_s=0.05)
    connection = await transport.connect(LOCALHOST, listener.port, BIND, Esme(), limits=limits)
    connection.gate = lambda: False
    connection.close()
    await soon(connection.closed)
    assert await soon(smsc.reason) != "unbound"


async def test_a_reset_is_seen_as_one(listener: Listener, smsc: Smsc) -> None:
    esme = Esme()
    connection = await transport.connect(LOCALHOST, listener.port, BIND, esme)
    connection.reset("enough")
    assert esme.reasons == ["enough"]
    assert "reset" in (await soon(smsc.reason)).lower()


async def test_a_fault_in_a_handler_is_answered_and_logged(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await transport.connect(LOCALHOST, listener.port, BIND, Esme())
    bad, good = connection.request(p.SubmitSm(destination="1", message=b"raise")), connection.request(SUBMIT)
    assert (await soon(bad)).pdu.status == c.ESME_RSYSERR
    assert (await soon(good)).pdu.message_id == "1"
    assert "handler fault" in caplog.text
    connection.close()
    await soon(connection.closed)


async def test_a_peer_that_does_not_read_is_not_read(smsc: Smsc) -> None:
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc)
    _, writer = await asyncio.open_connection(LOCALHOST, listener.port, limit=1024)
    writer.write(codec.encode(BIND, 1))
    await soon(smsc.bound.wait())
    server_side = smsc.connection
    assert server_side is not None
    flood = codec.HEADER.pack(16, c.ENQUIRE_LINK, 0, 1) * 4096
    paused = asyncio.Event()
    original = server_side.pause_writing

    def pause_writing() -> None:
        original()
        paused.set()

    server_side.pause_writing = pause_writing  # type: ignore[method-assign]
    while not paused.is_set():
        writer.write(flood)
        await asyncio.sleep(0)
    assert server_side.room == 0
    assert server_side._transport is not None
    assert server_side._transport.get_write_buffer_size() < 8 * transport.WRITE_BUFFER_OCTETS
    writer.transport.abort()
    await soon(server_side.closed)
    await listener.close()


async def test_connections_above_the_limit_are_turned_away(smsc: Smsc) -> None:
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc, max_connections=1)
    connection = await transport.connect(LOCALHOST, listener.port, BIND, Esme())
    with pytest.raises(ConnectError):
        await soon(transport.connect(LOCALHOST, listener.port, BIND, Esme()))
    assert connection.bound
    await listener.close()


async def test_closing_the_listener_unbinds_its_sessions(smsc: Smsc) -> None:
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc)
    esme = Esme()
    connection = await transport.connect(LOCALHOST, listener.port, BIND, esme)
    await soon(listener.close())
    assert await soon(connection.closed) == "unbound"


async def test_tls(smsc: Smsc, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc, ssl=serving)
    connection = await transport.connect(
        LOCALHOST, listener.port, BIND, Esme(), ssl=trusting, server_hostname="localhost"
    )
    assert (await soon(connection.request(SUBMIT))).pdu.message_id == "1"
    connection.close()
    await soon(connection.closed)
    await listener.close()


async def test_default_handler_refuses_everything() -> None:
    listener = await transport.listen(LOCALHOST, 0, Handler)
    with pytest.raises(ConnectError) as caught:
        await soon(transport.connect(LOCALHOST, listener.port, BIND, Handler()))
    assert caught.value.status == c.ESME_RBINDFAIL
    await listener.close()


@pytest.mark.parametrize(
    "scenario",
    [
        test_submit_deliver_and_goodbye,
        test_what_a_gate_holds_back_goes_when_it_opens,
        test_an_end_behind_a_gate_is_without_a_word,
        test_a_reset_is_seen_as_one,
        test_garbage_is_nacked_and_closed,
        test_a_fault_in_a_handler_is_answered_and_logged,
    ],
)
def test_the_same_on_uvloop(scenario: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        smsc = Smsc()
        listener = await transport.listen(LOCALHOST, 0, lambda: smsc)
        third = caplog if "caplog" in scenario.__code__.co_varnames else smsc
        await scenario(listener, third)
        await listener.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def test_backpressure_and_tls_on_uvloop(tmp_path: Path) -> None:
    async def run() -> None:
        await test_a_peer_that_does_not_read_is_not_read(Smsc())
        await test_tls(Smsc(), tmp_path)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def test_smpp34_as_esme(listener: Listener, smsc: Smsc) -> None:
    client = smpp34.Client(LOCALHOST, listener.port, "me", "secret")
    theirs = await soon(client.connect())
    answer = await soon(theirs.submit_sm("15550002", b"hello", source_addr="12345", tlvs=[smpp34.Tlv(0x1400, b"x")]))
    assert (answer.command_status, answer.message_id) == (0, "1")
    assert smsc.messages == [b"hello"]
    assert smsc.connection is not None
    acknowledged = smsc.connection.request(DELIVER)
    event = await soon(theirs.next())
    assert (event.source_addr, event.short_message) == ("15550002", b"hi")
    assert (await soon(acknowledged)).pdu.status == 0
    await soon(theirs.unbind())
    assert "unbound" in await soon(smsc.reason)
    await client.stop()


async def test_smpp34_as_smsc() -> None:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        port = probe.getsockname()[1]
    server = smpp34.Server(LOCALHOST, port)
    await server.start()
    esme = Esme()
    connection = await soon(transport.connect(LOCALHOST, port, BIND, esme))
    bound = await soon(server.next())
    assert isinstance(bound, smpp34.Esme)
    answered = connection.request(SUBMIT)
    event = await soon(server.next())
    assert (event.source_addr, event.short_message) == ("12345", b"hello")
    event.accept("A7")
    assert (await soon(answered)).pdu.message_id == "A7"
    delivering = asyncio.ensure_future(bound.deliver_sm("12345", b"hi", source_addr="15550002"))
    sequence, pdu = await soon(esme.delivered.get())
    assert pdu.message == b"hi"
    connection.respond(sequence)
    assert (await soon(delivering)).is_success
    connection.close()
    await soon(connection.closed)
    await server.stop()


async def test_a_closed_session_does_not_wait_for_a_peer_that_never_reads(
    smsc: Smsc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CLOSE_TIMEOUT_S", 0.05)
    listener = await transport.listen(LOCALHOST, 0, lambda: smsc)
    _, writer = await asyncio.open_connection(LOCALHOST, listener.port, limit=1024)
    writer.write(codec.encode(BIND, 1))
    await soon(smsc.bound.wait())
    assert smsc.connection is not None
    inner = smsc.connection._transport
    assert inner is not None
    lost = asyncio.Event()
    original = smsc.connection.connection_lost

    def connection_lost(exc: Exception | None) -> None:
        original(exc)
        lost.set()

    smsc.connection.connection_lost = connection_lost  # type: ignore[method-assign]
    inner.write(b"\0" * 20_000_000)  # more than the kernel takes
    smsc.connection._dispatch(smsc.connection.session.connection_lost("over"))
    smsc.connection._flush()
    await soon(lost.wait())
    writer.transport.abort()
    await listener.close()


async def test_room_is_signalled_after_a_full_window(listener: Listener) -> None:
    esme = Esme()
    connection = await transport.connect(LOCALHOST, listener.port, BIND, esme, limits=Limits(window=1))
    connection.request(SUBMIT)
    with pytest.raises(WindowFullError):
        connection.request(SUBMIT)
    await soon(esme.room.wait())
    assert connection.room == 1
    connection.close()
    await soon(connection.closed)
