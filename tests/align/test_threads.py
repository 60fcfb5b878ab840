"""Slices of a batch in threads: each once, whoever lends the threads; errors come back to the caller."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from queue import Empty

import pytest
import torch

from weightspace.align.solver import _threads
from weightspace.align.solver._threads import in_slices


@pytest.fixture(params=["team", "pool"], autouse=True)
def two_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "pool":
        monkeypatch.setattr(_threads, "_openmp", lambda: None)
    elif _threads._openmp() is None:
        pytest.skip("PyTorch has loaded no OpenMP here")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100, 1001])
def test_every_item_is_in_one_slice(count: int) -> None:
    seen: list[int] = []
    in_slices(lambda start, stop: seen.extend(range(start, stop)), count)
    assert sorted(seen) == list(range(count))


def test_two_threads_work_at_once() -> None:
    meeting = threading.Barrier(2, timeout=20)
    in_slices(lambda start, stop: meeting.wait(), 32)  # eight slices: a thread alone would wait for ever


def test_an_error_comes_back_to_the_caller() -> None:
    def run(start: int, stop: int) -> None:
        if start <= 20 < stop:
            raise KeyError("twenty")

    with pytest.raises(KeyError, match="twenty"):
        in_slices(run, 64)
    in_slices(lambda start, stop: None, 64)  # and the threads are there for the next


def test_several_threads_may_call_at_once() -> None:
    results: list[list[int]] = [[] for _ in range(4)]
    callers = [
        threading.Thread(target=in_slices, args=(lambda a, b, own=own: own.extend(range(a, b)), 200)) for own in results
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert [sorted(own) for own in results] == [list(range(200))] * 4


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons warn of any fork with threads
def test_a_forked_process_does_not_wait_for_its_parents_threads() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this platform")
    in_slices(lambda start, stop: None, 64)
    child = multiprocessing.get_context("fork").Process(target=in_slices, args=(lambda start, stop: None, 64))
    child.start()
    child.join(20)
    assert child.exitcode == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_is_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting:
        """A queue in whose call the interrupt arrives, outside of any slice."""

        def __init__(self) -> None:
            self.parts: list[tuple[int, int]] = []

        def put(self, part: tuple[int, int]) -> None:
            self.parts.append(part)

        def get_nowait(self) -> tuple[int, int]:
            if len(self.parts) == 3:
                self.parts.pop()
                raise KeyboardInterrupt
            if not self.parts:
                raise Empty
            return self.parts.pop()

    monkeypatch.setattr(_threads, "SimpleQueue", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        in_slices(lambda start, stop: None, 64)
