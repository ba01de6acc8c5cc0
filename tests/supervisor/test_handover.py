"""The order in which one process of the node follows another, with processes and clock made up."""

import pytest

from trunkline.inherited import CLOSED, HAND_OVER, HEALTH, READY, RELEASED, WARM
from trunkline.supervisor.handover import Handover, Patience, Stage


class Process:
    def __init__(self, pid, argv):
        self.pid, self.argv = pid, argv
        self.asked = []
        self.alive = True
        self.takes = ("connections",)
        self.told_takes = None

    def ask(self, do, **more):
        self.asked.append(do)
        self.told_takes = more.get("takes", self.told_takes)

    def kill(self):
        self.alive = False


class Host:
    """The supervisor; starts processes 2, 3, ... and notes what happens."""

    def __init__(self, missing=()):
        self.time = 0.0
        self.made = []
        self.turns = []
        self.told = []
        self.settled = []
        self.missing = missing

    def now(self):
        return self.time

    def successor(self, argv, *, wait):
        if argv[0] in self.missing:
            raise FileNotFoundError(2, "No such file or directory")
        self.made.append((Process(len(self.made) + 2, argv), wait))
        return self.made[-1][0]

    def take_turn(self, process):
        self.turns.append(process.pid)

    def tell(self, text, **more):
        self.told.append(text)

    def settle(self, argv):
        self.settled.append(argv)


class Scene:
    def __init__(self, *, argv=("new",), missing=()):
        self.host = Host(missing)
        self.old = Process(1, ["old"])
        self.handover = Handover(
            self.host, self.old, list(argv), Patience(warm_s=60, drain_s=90, ready_s=30, grace_s=10)
        )
        self.handover.begin()

    @property
    def new(self):
        return self.host.made[-1][0]

    def says(self, process, event, **more):
        self.handover.heard(process, {"event": event, **more})

    def passes(self, seconds):
        self.host.time += seconds
        self.handover.look()

    def serving(self, *, well=True):
        self.says(self.old, HEALTH, ok=well)
        self.says(self.new, WARM)
        self.says(self.old, CLOSED)
        self.host.time += 0.5
        self.says(self.old, RELEASED)
        self.host.time += 0.25
        self.says(self.new, READY)
        return self


def test_the_old_one_is_told_once_the_new_one_is_warm_and_that_begins_once_the_old_one_let_go():
    scene = Scene()
    assert (scene.old.asked, scene.host.turns, scene.host.made[0][1]) == ([HEALTH], [], True)
    scene.says(scene.new, WARM)
    assert (scene.old.asked, scene.host.turns) == ([HEALTH, HAND_OVER], [])
    scene.says(scene.old, CLOSED)
    assert scene.host.turns == []
    scene.says(scene.old, RELEASED)
    assert scene.host.turns == [2]
    assert scene.handover.stage is Stage.STARTING


def test_it_is_done_after_the_grace_time_and_the_pause_is_told():
    scene = Scene().serving()
    assert scene.handover.pause_s == pytest.approx(0.75)
    assert not scene.host.settled
    for _ in range(11):
        scene.passes(1.0)
        scene.says(scene.new, HEALTH, ok=True)
    assert scene.handover.stage is Stage.DONE
    assert scene.host.settled == [["new"]]


def test_words_out_of_turn_change_nothing():
    scene = Scene()
    scene.says(scene.old, WARM)
    scene.says(scene.new, RELEASED)
    scene.says(scene.new, READY)
    assert (scene.handover.stage, scene.host.turns) == (Stage.WARMING, [])


def test_a_version_that_is_not_there_changes_nothing():
    scene = Scene(missing=("new",))
    assert scene.handover.stage is Stage.FAILED
    assert "No such file" in scene.handover.why
    assert (scene.old.asked, scene.host.made) == ([], [])


@pytest.mark.parametrize("late", [False, True])
def test_a_new_one_that_does_not_get_warm_changes_nothing(late):
    scene = Scene()
    if late:
        scene.passes(61)
    else:
        assert scene.handover.ended(scene.new, "status 1")
    assert scene.handover.stage is Stage.FAILED
    assert "goes on" in scene.handover.why
    assert HAND_OVER not in scene.old.asked
    assert scene.old.alive


def test_an_old_one_that_does_not_let_go_is_killed():
    scene = Scene()
    scene.says(scene.new, WARM)
    scene.passes(91)
    assert not scene.old.alive
    assert scene.host.turns == [2]


def test_the_end_of_the_old_one_counts_as_letting_go():
    scene = Scene()
    scene.says(scene.new, WARM)
    assert scene.handover.ended(scene.old, "signal 9")
    assert scene.host.turns == [2]


def test_a_crash_of_the_old_one_lets_the_warming_one_follow():
    scene = Scene()
    assert not scene.handover.ended(scene.old, "signal 9")
    assert scene.handover.crashed()
    assert scene.host.turns == [2]


@pytest.mark.parametrize("how", ["ends", "hangs", "ends while the old one drains"])
def test_the_old_version_is_started_again_when_the_new_one_does_not_begin(how):
    scene = Scene()
    scene.says(scene.new, WARM)
    if how.endswith("drains"):
        assert scene.handover.ended(scene.new, "signal 11")
        assert scene.host.turns == []
        scene.says(scene.old, RELEASED)
    else:
        scene.says(scene.old, RELEASED)
        if how == "ends":
            scene.new.alive = False
            assert scene.handover.ended(scene.new, "status 1")
        else:
            first = scene.new
            scene.passes(31)
            assert not first.alive
    assert (scene.new.argv, scene.new.pid, scene.host.made[-1][1]) == (["old"], 3, False)
    assert scene.host.turns[-1] == 3
    scene.says(scene.new, READY)
    assert scene.handover.stage is Stage.FAILED
    assert "the version before is back" in scene.handover.why
    assert not scene.host.settled


def test_the_old_version_is_started_again_when_the_new_one_ends_in_its_grace_time():
    scene = Scene().serving()
    scene.passes(3)
    assert scene.handover.ended(scene.new, "status 1")
    assert (scene.new.argv, scene.host.turns) == (["old"], [2, 3])


def test_one_that_is_not_well_hands_back_in_the_same_order():
    scene = Scene().serving()
    bad = scene.new
    scene.says(bad, HEALTH, ok=False, why="no queue")
    scene.passes(10)
    assert (scene.handover.stage, scene.new.argv, scene.host.made[-1][1]) == (Stage.WARMING, ["old"], True)
    assert bad.alive
    scene.says(scene.new, WARM)
    assert bad.asked[-1] == HAND_OVER
    scene.says(bad, RELEASED)
    scene.says(scene.new, READY)
    assert scene.handover.stage is Stage.FAILED
    assert "no queue" in scene.handover.why
    assert scene.host.turns == [2, 3]


def test_one_that_is_no_worse_than_its_predecessor_stays():
    scene = Scene().serving(well=False)
    scene.says(scene.new, HEALTH, ok=False, why="no carrier")
    scene.passes(10)
    assert scene.handover.stage is Stage.DONE


def test_the_operator_may_want_the_old_version_back_in_the_grace_time_alone():
    scene = Scene()
    assert not scene.handover.ask_back("no")
    scene.serving()
    assert scene.handover.ask_back("it looks wrong")
    assert scene.new.argv == ["old"]
    assert not scene.handover.ask_back("again")


@pytest.mark.parametrize(
    ("says", "given"),
    [
        ({}, ("connections",)),
        ({"takes": ["connections", "begun", "of a later release"]}, ("connections", "begun")),
        ({"takes": "nonsense"}, ("connections",)),
    ],
)
def test_the_old_process_is_told_what_its_successor_takes(says, given):
    scene = Scene()
    scene.says(scene.new, WARM, **says)
    assert (scene.old.asked[-1], scene.old.told_takes) == (HAND_OVER, given)
