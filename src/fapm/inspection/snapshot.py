"""A memory with the engine that belongs to it: one object, swapped whole."""

from __future__ import annotations

from typing import Any

from fapm.bundle.fitted import Fitted
from fapm.engines.base import Engine, Runtime
from fapm.engines.opening import open_engine
from fapm.system.forks import Once


class Snapshot:
    """The memory of a detector at one moment, with its engine. It is never changed.

    Whoever learns makes another one. A prediction takes one at its start, so that its score, its
    threshold and the picture it names are of one memory.

    Parameters
    ----------
    fitted
        the memory.
    runtime
        how its graph is run.
    """

    def __init__(self, fitted: Fitted, runtime: Runtime) -> None:
        self.fitted = fitted
        self.runtime = runtime
        self._engine: Once[Engine] = Once(lambda: open_engine(fitted, runtime))

    @property
    def engine(self) -> Engine:
        """The engine that runs the graph; made when it is first needed, by one thread."""
        return self._engine()

    def __reduce__(self) -> tuple[Any, ...]:
        return Snapshot, (self.fitted, self.runtime)
