"""Work ahead of the encoder in threads, order kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import TypeVar

from fapm.system.workers import Task, Workers

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 2, ahead: int = 8
) -> Iterator[Result]:
    """``map`` with threads: results in order, at most ``ahead`` of them waiting.

    ``items`` is read only as far as work is handed out, so that an endless generator is fine. A
    single item needs no threads.
    """
    source = iter(items)
    first = list(islice(source, 2))
    if len(first) < 2:
        yield from map(function, first)
        return
    with _ahead(function, chain(first, source), ahead, threads) as (waiting, hand_out):
        while waiting:
            result = waiting.popleft().result()
            hand_out(1)
            yield result


def ready_batches(
    function: Callable[[Item], Result], items: Iterable[Item], *, size: int, threads: int = 2
) -> Iterator[list[Result]]:
    """``map`` in lists of up to ``size`` results, in order; none waits for a list to be full.

    A sequence is worked on ahead in threads, and a list has what is ready when it is asked for; a
    single item needs none. Any other iterable may be a camera: its next item is not asked for
    before the last result has been taken.
    """
    if not isinstance(items, Sequence) or len(items) == 1:
        for item in items:
            yield [function(item)]
        return
    with _ahead(function, items, 2 * size, threads) as (waiting, hand_out):
        while waiting:
            batch = [waiting.popleft().result()]
            while waiting and len(batch) < size and waiting[0].ready():
                batch.append(waiting.popleft().result())
            hand_out(len(batch))
            yield batch


@contextmanager
def _ahead(
    function: Callable[[Item], Result], items: Iterable[Item], count: int, threads: int
) -> Iterator[tuple[deque[Task[Result]], Callable[[int], None]]]:
    """The first ``count`` tasks, and what hands out so many more; unread ones are cancelled."""
    source = iter(items)
    waiting: deque[Task[Result]] = deque()
    workers = Workers(threads)

    def hand_out(more: int) -> None:
        waiting.extend(workers.submit(partial(function, item)) for item in islice(source, more))

    try:
        hand_out(count)
        yield waiting, hand_out
    finally:
        for task in waiting:
            task.cancel()
        workers.close()


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of up to ``size`` items."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of the items, evenly spread."""
    return items[:: max(1, -(-len(items) // most))]
