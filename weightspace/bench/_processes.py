"""Processes of one thread that end with the process that started them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch

from weightspace.fitting import RayExecutor
from weightspace.fitting._executors import versions

K = TypeVar("K")
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # numbers of <malloc.h>


Pool = Callable[[Callable[..., Any], Mapping[K, tuple]], Iterator[tuple[K, Any]]]
"""A function that calls another elsewhere, once for each key, and yields keys and results as they finish."""


@contextmanager
def worker_pool(workers: int) -> Iterator[Pool]:
    """Start processes; yield a function that calls another there and yields keys and results as they finish.

    If anything is raised meanwhile, an interrupt included, the processes are ended before it is raised on.
    """
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(os.getcwd(),)) as pool:

        def run(function: Callable[..., Any], arguments: Mapping[K, tuple]) -> Iterator[tuple[K, Any]]:
            futures = {pool.submit(function, *own): key for key, own in arguments.items()}
            for future in as_completed(futures):
                try:
                    result = future.result()
                except BrokenProcessPool as error:
                    raise RuntimeError(
                        "expected the processes of the suite to live, got one that the system ended, as it does where "
                        "memory is short; give the same command again with fewer workers: finished cells stay"
                    ) from error
                yield futures[future], result

        try:
            yield run
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end(set(multiprocessing.active_children()) - others)
            raise


@contextmanager
def ray_pool(executor: RayExecutor) -> Iterator[Pool]:
    """Yield a function that calls another on a Ray cluster and yields keys and results as they finish.

    A call whose worker or machine died is begun again, and a cell goes on from its checkpoint.
    """
    own, folder = versions(), os.getcwd()

    def run(function: Callable[..., Any], arguments: Mapping[K, tuple]) -> Iterator[tuple[K, Any]]:
        sent = ((key, (function, args, own, folder)) for key, args in arguments.items())
        return executor.call(_on_ray, sent, "{} could not be run")

    yield run


def _on_ray(function: Callable[..., Any], arguments: tuple, wanted: dict[str, str], folder: str) -> Any:
    if (here := versions()) != wanted:
        raise RuntimeError(f"expected {wanted} on every machine, got {here}; install the same versions")
    if folder not in sys.path:
        sys.path.append(folder)
    torch.set_num_threads(1)
    return function(*arguments)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise ``KeyboardInterrupt`` inside, so that what an interrupt cleans up is cleaned up.

    A handler that the program has set itself stays; so does everything outside the main thread, where Python sets no
    handlers.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(children: set[BaseProcess]) -> None:
    """End processes and wait until they are gone; a cell loses at most one epoch, because it has checkpoints."""
    for child in children:
        child.terminate()
    for child in children:
        child.join()
    deadline = time.monotonic() + 10
    while children & set(multiprocessing.active_children()) and time.monotonic() < deadline:
        time.sleep(0.01)  # the pool waits for them too, and one of the two waits ends before the process is struck off


def _start_worker(folder: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if folder not in sys.path:
        sys.path.append(folder)  # last, where an import path given on the command line is looked for too
    torch.set_num_threads(1)
    _keep_freed_memory()


def _end_with_parent() -> None:
    """Wait for the parent process and end with it, however it ended: after SIGKILL nobody else would end this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _keep_freed_memory() -> None:
    """Let glibc hand one step's memory to the next, not to the system and back, page by page."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library has no such function, and nothing is lost without it
        return
    for option, value in ((_M_MMAP_THRESHOLD, 1 << 25), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 1 << 27)):
        mallopt(option, value)
