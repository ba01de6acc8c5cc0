import pytest

from trunkline.media import protocol
from trunkline.media.wire import Deframer, FrameTooLong, decode_command, decode_event, decode_numbered, frame

PLAY = protocol.Play(leg="CA1", play="p", n=7, items=[protocol.Audio(path="x"), protocol.Tone(parts=[((440,), 100)])])


def test_messages_survive_any_cutting() -> None:
    data = frame(PLAY) + frame(protocol.Close(leg="CA1", n=8))
    for size in (1, 3, len(data)):
        deframer, bodies = Deframer(), []
        for at in range(0, len(data), size):
            deframer.feed(data[at : at + size])
            while (body := deframer.next()) is not None:
                bodies.append(decode_command(body))
        assert bodies == [PLAY, protocol.Close(leg="CA1", n=8)]
        assert deframer.held == 0


def test_events_survive() -> None:
    event = protocol.Recorded(recording="RE1", leg="CA1", event=3, gaps=[(1, 2)])
    deframer = Deframer()
    deframer.feed(frame(event))
    assert decode_event(deframer.next() or b"") == event


def test_frames_have_a_limit_both_ways() -> None:
    with pytest.raises(FrameTooLong):
        frame(protocol.Close(leg="x" * protocol.MAX_FRAME))
    deframer = Deframer()
    deframer.feed((protocol.MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(FrameTooLong):
        deframer.next()


def test_the_number_of_an_unknown_command_can_be_read() -> None:
    deframer = Deframer()
    deframer.feed(frame(PLAY))
    head = decode_numbered(deframer.next() or b"")
    assert (head.n, head.t) == (7, "play")
