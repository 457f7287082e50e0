"""Three stages at the same time: one item is read, one worked on, one written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Input = TypeVar("Input")
Output = TypeVar("Output")
Result = TypeVar("Result")


def overlap(
    items: Iterable[Item],
    read: Callable[[Item], Input],
    work: Callable[[Item, Input], Output],
    write: Callable[[Item, Output], Result],
    report: Callable[[Item, Callable[[], Result]], None],
) -> None:
    """Take every item through `read`, `work` and `write`, with the three stages in parallel.

    `work` and `report` are called in this thread, `read` and `write` in one thread each. At most
    three items are held: while one is worked on, the next is read and the last one written.
    What has been worked on is written and reported whatever happens afterwards, Ctrl-C included.

    Args:
        items: each is taken when its reading begins.
        read: called with an item; returns the input of `work`.
        work: called with an item and its input; returns what to write.
        write: called with an item and what to write; returns the result.
        report: called with every item, in order, and its outcome: a function that returns what
            `write` returned, or raises what any of the three raised. An error in `report` ends the
            run.

    >>> overlap("ab", str.upper, lambda item, x: x * 2, lambda item, x: x + item,
    ...         lambda item, outcome: print(item, outcome()))
    a AAa
    b BBb
    """
    rest = iter(items)
    ahead: deque[tuple[Item, Future[Input]]] = deque()
    behind: deque[tuple[Item, Future[Result]]] = deque()
    reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
    writer = ThreadPoolExecutor(1, thread_name_prefix="writer")

    def begin() -> None:
        for item in islice(rest, 1):
            ahead.append((item, reader.submit(read, item)))

    def worked(item: Item, coming: Future[Input]) -> Future[Result]:
        try:
            return writer.submit(write, item, work(item, coming.result()))
        except Exception as error:  # this item's outcome, raised when it is asked for
            failed: Future[Result] = Future()
            failed.set_exception(error)
            return failed

    def end_first() -> None:
        wait([behind[0][1]])  # Ctrl-C here leaves it in its place
        item, going = behind.popleft()
        report(item, going.result)

    try:
        begin()
        while ahead:
            item, coming = ahead.popleft()
            begin()
            behind.append((item, worked(item, coming)))
            while behind and (len(behind) > 1 or behind[0][1].done()):
                end_first()
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
        try:
            while behind:
                end_first()
        finally:
            writer.shutdown()
            reader.shutdown()
