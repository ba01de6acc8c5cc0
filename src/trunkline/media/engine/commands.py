"""Carrying out the node's commands (trunkline.media.protocol), between ticks.

Each handler returns "" or why it could not be done. A command that was done already (sent again after the process was
replaced between doing it and noting so) does no harm.
"""

from collections.abc import Callable
from typing import Any, Final

from trunkline.media import protocol
from trunkline.media.engine import legs
from trunkline.media.engine.engine import Engine
from trunkline.media.engine.legs import BadLeg, Leg
from trunkline.media.engine.state import RATE
from trunkline.media.native.coding import NoCodec

NO_LEG: Final = "no such leg"


def carry_out(engine: Engine, command: protocol.Command) -> None:
    """Do it; tell `Refused` when it cannot be done. Notes the command's number."""
    handler = HANDLERS.get(type(command))
    if handler is None:
        return
    try:
        reason = handler(engine, command)
    except (BadLeg, NoCodec) as error:
        reason = str(error)
    if reason:
        what = str(type(command).__struct_config__.tag)
        leg = str(getattr(command, "leg", ""))
        engine.tell(protocol.Refused(command=command.n, what=what, leg=leg, reason=reason))
    if command.n:
        engine.state.done = command.n


def _open(engine: Engine, command: protocol.Open) -> str:
    if command.leg in engine.legs:
        return "" if engine.legs[command.leg].description.slot == command.slot else "the leg is open already"
    legs.check(command)
    row = engine.free_row()
    if row < 0:
        return "no room for another leg"
    leg = Leg(row, command)
    engine.codecs.expect(leg.codecs)
    engine.secure.expect(command.srtp)
    if not engine.slots.use(command.slot):
        return "the slot is not leased"
    try:
        engine.helper.connect(engine.sockets.rtp(command.slot), b"")  # whatever a leg before it, or a process, left
        engine.sockets.drain(command.slot)
        legs.open_leg(engine.state, leg, engine.state.tick, six=engine.sockets.six)
        engine.secure.set(row, command.srtp)
    except BadLeg:
        engine.slots.rest(command.slot, engine.state.tick)
        raise
    engine.add(leg)
    return ""


def _modify(engine: Engine, command: protocol.Modify) -> str:
    leg = engine.legs.get(command.leg)
    if leg is None:
        return NO_LEG
    legs.check(command)
    state, row = engine.state, leg.row
    new = legs.modified(leg, command)
    engine.codecs.expect(new.codecs)
    engine.secure.expect(command.srtp)
    heard = bool(state.receive[row])
    to, rtcp_to = state.to[row].copy(), state.rtcp_to[row].copy()
    lengths = int(state.to_length[row]), int(state.rtcp_to_length[row])
    latched = bool(state.latched[row])
    legs.apply(state, new, six=engine.sockets.six)
    if not state.describe_leg(row, new.description):
        return "the description is too long"
    engine.secure.set(row, command.srtp)
    if latched and new.description.remote == leg.description.remote:
        # The same address as before: behind NAT it is not where the audio goes, so what was latched to stays.
        state.to[row], state.rtcp_to[row] = to, rtcp_to
        state.to_length[row], state.rtcp_to_length[row] = lengths
    legs.leave(state, leg, new)
    if command.relatch:
        legs.reopen_latch(state, row)
    if heard != bool(state.receive[row]):
        engine.buffer.reset(row)
    state.last_heard[row] = state.tick
    engine.guard.release(row)
    engine.replace(new)
    return ""


def _close(engine: Engine, command: protocol.Close) -> str:
    leg = engine.legs.get(command.leg)
    if leg is None:
        return NO_LEG
    engine.remove(leg)
    return ""


def _play(engine: Engine, command: protocol.Play) -> str:
    leg = engine.legs.get(command.leg)
    if leg is None:
        return NO_LEG
    reason = engine.player.start(leg.row, command)
    if reason:
        engine.tell(protocol.Played(leg=command.leg, play=command.play, why="failed"))
    return reason


def _stop(engine: Engine, command: protocol.Stop) -> str:
    leg = engine.legs.get(command.leg)
    if leg is None:
        return NO_LEG
    engine.player.stop(leg.row, "stopped")
    return ""


def _bridge(engine: Engine, command: protocol.Bridge) -> str:
    a, b = engine.legs.get(command.a), engine.legs.get(command.b)
    if a is None or b is None or a is b:
        return NO_LEG
    engine.unbridge(a.row)
    engine.unbridge(b.row)
    engine.state.peer[a.row], engine.state.peer[b.row] = b.row, a.row
    return ""


def _unbridge(engine: Engine, command: protocol.Unbridge) -> str:
    leg = engine.legs.get(command.leg)
    if leg is None:
        return NO_LEG
    engine.unbridge(leg.row)
    return ""


def _detect(engine: Engine, command: protocol.Detect) -> str:
    leg = engine.legs.get(command.leg)
    if leg is None:
        return NO_LEG
    engine.watch.detect(leg.row, max(0, command.silence_ms) * RATE // 1000)
    return ""


def _mute(engine: Engine, command: protocol.Mute) -> str:
    leg = engine.legs.get(command.leg)
    if leg is None:
        return NO_LEG
    engine.state.muted[leg.row] = command.muted
    return ""


def _record(engine: Engine, command: protocol.Record) -> str:
    leg = engine.legs.get(command.leg)
    reason = engine.recordings.start(leg.row, command) if leg is not None else NO_LEG
    if reason:
        engine.tell(protocol.Recorded(recording=command.recording, leg=command.leg, why="failed"))
    return reason


def _pause_record(engine: Engine, command: protocol.PauseRecord) -> str:
    return engine.recordings.pause(command.recording, command.mode)


def _resume_record(engine: Engine, command: protocol.ResumeRecord) -> str:
    return engine.recordings.resume(command.recording)


def _stop_record(engine: Engine, command: protocol.StopRecord) -> str:
    return engine.recordings.stop(command.recording)


HANDLERS: Final[dict[type, Callable[[Engine, Any], str]]] = {
    protocol.Open: _open,
    protocol.Modify: _modify,
    protocol.Close: _close,
    protocol.Play: _play,
    protocol.Stop: _stop,
    protocol.Bridge: _bridge,
    protocol.Unbridge: _unbridge,
    protocol.Detect: _detect,
    protocol.Mute: _mute,
    protocol.Record: _record,
    protocol.PauseRecord: _pause_record,
    protocol.ResumeRecord: _resume_record,
    protocol.StopRecord: _stop_record,
}
