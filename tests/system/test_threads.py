"""Threads, forks and exits: nothing hangs, nothing is lost, and nobody judges by half a memory."""

from __future__ import annotations

import copy
import itertools
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fapm
from fapm import Detector
from fapm.engines.base import Runtime
from fapm.system import parallel as pipeline
from fapm.system import workers
from fapm.system.forks import Once
from fapm.system.parallel import ordered_map, ready_batches
from stripes import defective, fitted, good, good_pictures

PATIENCE = 120  # seconds after which a program counts as hanging
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run_program(body: str, *arguments: object, **environment: str) -> str:
    """What a program with the striped parts at hand prints; it must end, with exit code 0."""
    finished = subprocess.run(
        [sys.executable, "-c", body, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


# The first native call

_FIRST = """
import sys, threading, time
import numpy as np
import fapm
from fapm.engines.opening import Runtime
from stripes import good

engine, how, bundle = sys.argv[1:]
if engine == "openvino":
    from fapm.engines.openvino_engine import ov
    kind, name = ov.InferRequest, "infer"
else:
    import onnxruntime
    kind, name = onnxruntime.InferenceSession, "run"
infer, lock, running, seen = getattr(kind, name), threading.Lock(), [], []

def slowly(self, *args, **kwargs):
    with lock:
        running.append(self)
        seen.append(len(running))
        first = len(seen) == 1
    if first:
        time.sleep(0.3)
    try:
        return infer(self, *args, **kwargs)
    finally:
        with lock:
            running.pop()
            if first:
                print(max(seen))

setattr(kind, name, slowly)

def judge():
    runtime = Runtime(engine=engine, hint=how, threads=2)
    fapm.load(bundle, runtime=runtime).predict([good(seed) for seed in range(4)])

threads = [threading.Thread(target=judge) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize(
    ("engine", "hint"),
    [("openvino", "latency"), ("openvino", "throughput"), ("onnxruntime", "latency")],
)
def test_the_first_inference_of_a_process_is_alone(engine: str, hint: str, bundle: Path) -> None:
    """However many detectors are opened at once, and however many threads they have."""
    assert run_program(_FIRST, engine, hint, bundle) == "1\n"


def test_what_is_made_once_is_made_by_one_thread() -> None:
    made: list[int] = []

    def make() -> int:
        time.sleep(0.05)
        made.append(1)
        return len(made)

    once = Once(make)
    with ThreadPoolExecutor(8) as pool:
        assert {task.result() for task in [pool.submit(once) for _ in range(8)]} == {1}


def test_what_could_not_be_made_is_tried_again() -> None:
    answers: Iterator[Any] = iter([OSError("not now"), "here"])

    def make() -> str:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return str(answer)

    once = Once(make)
    with pytest.raises(OSError, match="not now"):
        once()
    assert (once(), once()) == ("here", "here")


# Memory and engine are one


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with keys enough to forget half of its pictures."""
    path = tmp_path_factory.mktemp("large") / "part.fapm"
    fitted(good_pictures(), ratio=0.5).save(path)
    return path


def saved_self(held: Detector, path: Path) -> Detector:
    held.save(path)
    return fapm.load(path)


def test_judging_while_an_engine_is_made_does_not_bring_the_old_memory_back(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine of the old memory is ready when the new memory is already there."""
    from fapm.inspection import snapshot

    held, learnt, compiling = fapm.load(bundle), threading.Event(), threading.Event()
    opened = snapshot.open_engine

    def slowly(*args: Any) -> Any:
        engine = opened(*args)
        compiling.set()
        assert learnt.wait(PATIENCE)
        return engine

    monkeypatch.setattr(snapshot, "open_engine", slowly)
    judging = threading.Thread(target=held.predict, args=(good(1),))
    judging.start()
    assert compiling.wait(PATIENCE)
    held.forget("array 3")
    learnt.set()
    judging.join()
    monkeypatch.undo()
    fresh = saved_self(held, tmp_path / "less.fapm")
    for seed in range(12):  # the forgotten picture among them
        ours, theirs = held.predict(good(seed)), fresh.predict(good(seed))
        assert (ours.score, ours.comparison.picture) == (theirs.score, theirs.comparison.picture)


def test_many_threads_judge_while_one_forgets(large: Path, tmp_path: Path) -> None:
    held, stop = fapm.load(large), threading.Event()
    pictures = [good(seed) for seed in range(4)]

    def judge() -> int:
        count = 0
        while not stop.is_set():
            for prediction in held.predict(pictures):
                assert prediction.comparison.picture.startswith("array ")
                count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        judging = [pool.submit(judge) for _ in range(3)]
        try:
            for number in range(5):
                held.forget(f"array {number}")
        finally:
            stop.set()
        assert all(task.result() for task in judging)
    fresh = saved_self(held, tmp_path / "less.fapm")
    for picture in [*pictures, defective(5)]:
        ours, theirs = held.predict(picture), fresh.predict(picture)
        assert (ours.score, ours.comparison.picture) == (theirs.score, theirs.comparison.picture)


def test_a_stream_goes_on_with_the_memory_it_began_with(bundle: Path) -> None:
    held, before = fapm.load(bundle), fapm.load(bundle).threshold_
    stream = held.stream(good(seed) for seed in range(3))
    thresholds = [next(stream).threshold]  # type: ignore[union-attr]
    held.forget("array 3")
    thresholds += [result.threshold for result in stream]  # type: ignore[union-attr]
    assert thresholds == [before] * 3
    assert held.threshold_ != before
    assert held.predict(good(1)).threshold == held.threshold_


def test_no_update_is_lost_when_several_learn_at_once(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fapm.updating import forget as forgetting

    held, forget = fapm.load(large), forgetting.forget

    def slowly(*args: Any, **kwargs: Any) -> Any:
        less = forget(*args, **kwargs)
        time.sleep(0.05)
        return less

    monkeypatch.setattr(forgetting, "forget", slowly)
    names = [f"array {number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(held.forget, names))
    assert len(held.fitted_.pictures) == 8
    assert sorted(change.pictures[0] for change in held.fitted_.history) == names


def test_judging_does_not_wait_for_learning(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fapm.updating import forget as forgetting

    held, judged, forget = fapm.load(bundle), threading.Event(), forgetting.forget

    def after_judging(*args: Any, **kwargs: Any) -> Any:
        assert judged.wait(PATIENCE)
        return forget(*args, **kwargs)

    monkeypatch.setattr(forgetting, "forget", after_judging)
    learning = threading.Thread(target=held.forget, args=("array 1",))
    learning.start()
    assert held.predict(good(1)).threshold == held.threshold_
    judged.set()
    learning.join()
    assert "array 1" not in held.fitted_.pictures


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda held: pickle.loads(pickle.dumps(held))]
)
def test_a_copy_judges_and_learns_by_itself(
    copied: Callable[[Detector], Detector], bundle: Path
) -> None:
    held = fapm.load(bundle)
    expected = held.score(good(1))
    twin = copied(held)
    assert twin.score(good(1)) == expected
    twin.forget("array 1")
    assert len(held.fitted_.pictures) == 12
    assert len(twin.fitted_.pictures) == 11
    assert held.score(good(1)) == expected


def test_another_runtime_takes_the_memory_along(bundle: Path) -> None:
    held = fapm.load(bundle)
    before, score = held.snapshot(), held.score(good(1))
    held.set_params(runtime=Runtime(engine="onnxruntime"))
    assert held.snapshot().fitted is before.fitted
    assert held.engine_.name == "onnxruntime"
    assert before.engine.name == "openvino"
    assert held.score(good(1)) == pytest.approx(score, rel=1e-3)


def test_decisions_are_of_one_memory(bundle: Path) -> None:
    held = fapm.load(bundle)
    pictures = [good(1), defective(2)]
    expected = held.score(pictures) - held.threshold_
    np.testing.assert_array_equal(held.decision_function(iter(pictures)), expected)
    assert held.decision_function([]).shape == (0,)


# Fork

_FORK = """
import multiprocessing, sys
import fapm, stripes
from fapm.engines.opening import Runtime

engine, hint, threads, when, bundle = sys.argv[1:]
runtime = Runtime(engine=engine, hint=hint, threads=int(threads))
pictures = [stripes.good(seed) for seed in range(5)]

def judge(held):
    return [round(score, 3) for score in held.score(pictures)]

def opened():
    return fapm.load(bundle, runtime=runtime)

def child(number):
    try:
        held = opened() if when == "child" else shared
        return judge(held) == expected and judge(held.forget("array 1")) is not None
    except fapm.FapmError as error:
        return str(error)

if __name__ == "__main__":
    shared = opened()
    expected = judge(shared)
    if when == "closed":  # its threads are idle, and a child would be given them
        shared = opened()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(*set(pool.map(child, range(2))))
    print(judge(opened()) == expected)
"""


@needs_fork
@pytest.mark.parametrize(
    ("engine", "hint", "when"),
    [
        ("openvino", "latency", "parent"),
        ("openvino", "latency", "closed"),
        ("openvino", "throughput", "parent"),
        ("openvino", "throughput", "child"),
        ("onnxruntime", "latency", "parent"),
    ],
)
def test_a_forked_child_judges_and_learns(engine: str, hint: str, when: str, bundle: Path) -> None:
    """With the parent's detector, used or not, and with one of its own."""
    assert run_program(_FORK, engine, hint, 2, when, bundle) == "True\nTrue\n"


@needs_fork
def test_a_forked_child_of_a_process_with_torchs_threads_says_spawn(bundle: Path) -> None:
    said, parent = run_program(_FORK, "torch", "latency", 2, "child", bundle).splitlines()
    assert said.startswith("torch: this process was forked after torch had computed on several")
    assert said.endswith("start processes with multiprocessing.get_context('spawn')")
    assert parent == "True"


@needs_fork
def test_torch_with_one_thread_may_be_forked(bundle: Path) -> None:
    said = run_program(_FORK, "torch", "latency", 1, "parent", bundle, OMP_NUM_THREADS="1")
    assert said == "True\nTrue\n"


_FORK_FIT = """
import os, sys
import torch
import fapm, stripes

torch.set_num_threads(2)
held = stripes.fitted(stripes.good_pictures(4))
child = os.fork()
if child == 0:
    print(round(held.score(stripes.good(9)), 3), flush=True)
    for learn in (lambda: stripes.fitted(stripes.good_pictures(4)),
                  lambda: held.update([stripes.good(7)])):
        try:
            learn()
        except fapm.FapmError as error:
            print(error, flush=True)
    os._exit(0)  # as multiprocessing's do: torch's own end waits for its threads
assert os.waitpid(child, 0)[1] == 0
print(round(held.score(stripes.good(9)), 3))
"""


@needs_fork
def test_a_child_of_a_process_that_fitted_judges_and_says_how_to_fit() -> None:
    score, *refused, parent = run_program(_FORK_FIT).splitlines()
    assert score == parent
    assert len(refused) == 2
    assert all("spawn" in line for line in refused)


_FORK_STREAM = """
import os, sys
import fapm, stripes

held = fapm.load(sys.argv[1])
stream = held.stream([stripes.good(seed) for seed in range(40)])
first = next(stream)
child = os.fork()
rest = [result.source for result in stream]
print(len(rest), rest[-1], flush=True)
if child:  # which ends as any program does
    assert os.waitpid(child, 0)[1] == 0
"""


@needs_fork
def test_a_stream_that_has_begun_goes_on_in_parent_and_child(bundle: Path) -> None:
    assert run_program(_FORK_STREAM, bundle) == "39 array 39\n" * 2


# Threads that cannot be had


def test_one_item_needs_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "Workers", None)
    assert list(ready_batches(str, [7], size=4)) == [["7"]]
    assert list(ordered_map(str, iter([7]))) == ["7"]
    assert list(ordered_map(str, [])) == []


@pytest.mark.parametrize(
    "reason", ["cannot schedule new futures after interpreter shutdown", "can't start new thread"]
)
def test_without_threads_the_work_is_done_in_place(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoThreads(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(reason)

    monkeypatch.setattr(workers, "ThreadPoolExecutor", NoThreads)
    assert list(ordered_map(str, range(20))) == list(map(str, range(20)))
    batches = ready_batches(str, range(20), size=4)
    assert list(itertools.chain(*batches)) == list(map(str, range(20)))


def test_an_error_of_the_work_itself_is_not_taken_for_a_lack_of_threads() -> None:
    def work() -> None:
        raise RuntimeError("the work's own")

    pool = workers.Workers(1)
    with pytest.raises(RuntimeError, match="the work's own"):
        pool.submit(work).result()
    pool.close()


_MAIN_ENDS = """
import sys, threading, time
import fapm, stripes
from fapm.engines.opening import Runtime

how, bundle = sys.argv[1:]
held = fapm.load(bundle, runtime=Runtime(hint="throughput", threads=2))
held.predict(stripes.good(1))

def worker():
    threading.main_thread().join()
    time.sleep(0.3)
    pictures = [stripes.good(seed) for seed in range(12)]
    judged = [held.predict(p) for p in pictures] if how == "one" else held.predict(pictures)
    print(len(judged), flush=True)

threading.Thread(target=worker).start()
"""


@pytest.mark.parametrize("how", ["one", "several"])
def test_a_thread_that_outlives_the_main_one_judges_all(how: str, bundle: Path) -> None:
    assert run_program(_MAIN_ENDS, how, bundle) == "12\n"


_DAEMONS = """
import itertools, sys, threading
import fapm, stripes

held, begun = fapm.load(sys.argv[1]), threading.Semaphore(0)
pictures = [stripes.good(seed) for seed in range(4)]

def worker(judge):
    for number in itertools.count():
        judge()
        if number == 2:
            begun.release()

ways = [lambda: held.predict(pictures), lambda: held.predict(pictures[0])] * 2
for way in ways:
    threading.Thread(target=worker, args=(way,), daemon=True).start()
for way in ways:
    begun.acquire()
"""


def test_a_program_ends_well_while_daemon_threads_judge(bundle: Path) -> None:
    for _ in range(4):  # each aborted in two of three cases
        run_program(_DAEMONS, bundle)
