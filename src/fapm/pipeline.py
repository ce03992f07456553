"""Work ahead of the encoder in threads, order kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Called with a stage's name, how much of it is done, and how much there is.
Progress: TypeAlias = Callable[[str, int, int], None]


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int = 2, ahead: int = 8
) -> Iterator[Result]:
    """``map`` with threads: results in order, at most ``ahead`` of them waiting.

    ``items`` is read only as far as work is handed out, so that an endless generator is fine.
    """
    source = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(source, ahead)
        )
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of up to ``size`` items."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
