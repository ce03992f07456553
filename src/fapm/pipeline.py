"""Work ahead of the encoder in threads, order kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Called with a stage's name, how much of it is done, and how much there is.
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass
class Stages:
    """Seconds that an inspection waited for decoded pictures, and that inference took."""

    decode: float = 0.0
    inference: float = 0.0

    def slowest(self, seconds: float) -> str:
        """What ``seconds`` in all were spent on most; what is in no stage is writing."""
        writing = seconds - self.decode - self.inference
        shares = {"decoding": self.decode, "inference": self.inference, "writing": writing}
        return max(shares, key=lambda name: shares[name])


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


def ready_batches(
    function: Callable[[Item], Result], items: Iterable[Item], *, size: int, threads: int = 2
) -> Iterator[list[Result]]:
    """``map`` in lists of up to ``size`` results, in order; none waits for a list to be full.

    A sequence is worked on ahead in threads, and a list has what is ready when it is asked for.
    Any other iterable may be a camera: its next item is not asked for before the last result has
    been taken.
    """
    if not isinstance(items, Sequence):
        for item in items:
            yield [function(item)]
        return
    source = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque(
            pool.submit(function, item) for item in islice(source, 2 * size)
        )
        try:
            while waiting:
                batch = [waiting.popleft().result()]
                while waiting and len(batch) < size and waiting[0].done():
                    batch.append(waiting.popleft().result())
                waiting.extend(pool.submit(function, i) for i in islice(source, len(batch)))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of up to ``size`` items."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
