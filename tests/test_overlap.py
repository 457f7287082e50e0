"""Reading, working and writing at the same time: in order, a few at a time, whatever goes wrong."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

import pytest

from masked_denoise.jobs.overlap import overlap

COUNT = 8


class Picture:
    """Something that can be counted while it is held."""


class Log:
    """Takes down what is reported."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, object]] = []

    def __call__(self, item: int, outcome: Callable[[], object]) -> None:
        try:
            self.lines.append((item, outcome()))
        except ValueError as error:
            self.lines.append((item, str(error)))


def same(item: int, *held: object) -> int:
    return item


def test_one_is_read_one_worked_on_and_one_written_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)

    def stage(turn: int) -> Callable[..., int]:
        def run(item: int, *held: object) -> int:
            if item == turn:
                meeting.wait()  # BrokenBarrierError where the three do not meet
            return item

        return run

    log = Log()
    overlap(range(COUNT), stage(2), stage(1), stage(0), log)
    assert log.lines == [(item, item) for item in range(COUNT)]


def test_the_time_is_that_of_the_slowest_stage() -> None:
    def slow(seconds: float) -> Callable[..., None]:
        return lambda item, *held: time.sleep(seconds)

    start = time.perf_counter()
    overlap(range(COUNT), slow(0.08), slow(0.1), slow(0.09), Log())
    elapsed = time.perf_counter() - start
    one_by_one, slowest = COUNT * 0.27, COUNT * 0.1
    assert slowest <= elapsed < 0.7 * one_by_one


@pytest.mark.parametrize("slow", ["read", "work", "write"])
def test_few_are_held_whichever_stage_is_slow(slow: str) -> None:
    living: weakref.WeakSet[Picture] = weakref.WeakSet()
    started, ended, most = [], [], [0]

    def wait(stage: str) -> None:
        if stage == slow:
            time.sleep(0.02)
        most[0] = max(most[0], len(living))
        assert len(started) - len(ended) <= 3

    def read(item: int) -> Picture:
        started.append(item)
        picture = Picture()
        living.add(picture)
        wait("read")
        return picture

    def work(item: int, picture: Picture) -> Picture:
        wait("work")
        return picture

    def write(item: int, picture: Picture) -> int:
        wait("write")
        ended.append(item)
        return item

    log = Log()
    overlap(range(12), read, work, write, log)
    assert log.lines == [(item, item) for item in range(12)]
    assert 1 <= most[0] <= 3
    assert not living


def test_what_fails_is_reported_in_its_turn_and_the_others_are_done() -> None:
    def failing(turn: int, word: str) -> Callable[..., int]:
        def run(item: int, *held: object) -> int:
            if item == turn:
                raise ValueError(word)
            return item

        return run

    log = Log()
    overlap(range(5), failing(0, "read"), failing(2, "work"), failing(3, "write"), log)
    assert log.lines == [(0, "read"), (1, 1), (2, "work"), (3, "write"), (4, 4)]


def test_what_was_worked_on_when_ctrl_c_came_is_written_and_reported() -> None:
    started, written, release = [], [], threading.Event()

    def read(item: int) -> int:
        started.append(item)
        return item

    def work(item: int, held: int) -> int:
        if item == 3:
            release.set()
            raise KeyboardInterrupt
        return item

    def write(item: int, held: int) -> int:
        if item == 2:
            assert release.wait(20)
        written.append(item)
        return item

    log = Log()
    with pytest.raises(KeyboardInterrupt):
        overlap(range(100), read, work, write, log)
    assert written == [0, 1, 2]
    assert log.lines == [(item, item) for item in written]
    assert started in ([0, 1, 2, 3], [0, 1, 2, 3, 4])


def test_what_the_report_raises_ends_the_run_and_no_thread_stays() -> None:
    before, worked = threading.active_count(), []

    def work(item: int, held: int) -> int:
        worked.append(item)
        return item

    def report(item: int, outcome: Callable[[], int]) -> None:
        if outcome() == 2:
            raise LookupError("a bug")

    with pytest.raises(LookupError, match="a bug"):
        overlap(range(100), same, work, same, report)
    assert worked in ([0, 1, 2], [0, 1, 2, 3])
    assert threading.active_count() == before


def test_nothing_to_do() -> None:
    overlap([], same, same, same, Log())
