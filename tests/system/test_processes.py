"""A call in a process of its own: its result, its death, its end."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import wait

import pytest

from fapm.system.processes import Call, ProcessDiedError


def test_the_result_of_the_one_that_ends_first_comes_first() -> None:
    slow, quick = Call(time.sleep, 60), Call(sorted, [3, 1, 2])
    try:
        assert wait([slow.connection, quick.connection]) == [quick.connection]
        assert quick.result() == [1, 2, 3]
        assert not slow.connection.poll()
    finally:
        quick.end()
        start = time.monotonic()
        slow.end()
    assert time.monotonic() - start < 30
    assert slow.connection.closed


def test_a_process_that_dies_says_how() -> None:
    call = Call(os._exit, 7)
    try:
        with pytest.raises(ProcessDiedError, match=r"its process ended with exit code 7$"):
            call.result()
    finally:
        call.end()
