from trunkline.rtp.telephone_event import Payload, Press, parse, track


def test_payloads_survive_the_wire() -> None:
    payload = Payload(11, True, 800, 7)
    assert payload.encode() == b"\x0b\x87\x03\x20"
    assert parse(payload.encode()) == payload
    assert parse(b"\x0b\x87\x03") is None
    assert Payload(1, False, 70_000).encode()[2:] == b"\xff\xff"


def press(code: int, *durations: int, ends: int = 3) -> list[Payload]:
    return [Payload(code, False, d) for d in durations] + [Payload(code, True, durations[-1] + 160)] * ends


def tell(packets: list[tuple[int, Payload]]) -> str:
    state = Press()
    return "".join(track(state, timestamp, payload) for timestamp, payload in packets)


def test_a_press_is_told_once() -> None:
    assert tell([(1000, p) for p in press(5, 160, 320, 480)]) == "5"


def test_it_is_told_before_it_ends() -> None:
    state = Press()
    assert [track(state, 1000, p) for p in press(11, 160, 320, ends=0)] == ["", "#"]


def test_equal_keys_in_a_row_are_two_presses() -> None:
    assert tell([(1000, p) for p in press(1, 320)] + [(2600, p) for p in press(1, 320)]) == "11"


def test_lost_ends_and_lost_starts_do_no_harm() -> None:
    assert tell([(1000, p) for p in press(1, 320, ends=0)] + [(2600, Payload(1, True, 800))]) == "11"


def test_late_and_repeated_packets_are_ignored() -> None:
    first = [(1000, p) for p in press(1, 320)]
    second = [(2600, p) for p in press(2, 320)]
    assert tell(first + second[:1] + first + second) == "12"


def test_too_short_presses_and_foreign_events_are_none() -> None:
    assert tell([(1000, p) for p in press(5, 80)]) == ""
    assert tell([(1000, p) for p in press(36, 320)]) == ""


def test_a_press_across_segments_is_one() -> None:
    packets = [(0, Payload(5, False, 0xFFFF)), (0xFFFF, Payload(5, False, 400)), (0xFFFF, Payload(5, True, 560))]
    assert tell(packets) == "5"


def test_timestamps_wrap() -> None:
    assert tell([(0xFFFFFF00, p) for p in press(1, 320)] + [(0x600, p) for p in press(2, 320)]) == "12"
