"""The processes of a grid end with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import weightspace as ws
from weightspace.bench._processes import sigterm_interrupts, worker_pool

PATIENCE = 300.0
"""Seconds until a test takes it that something will never happen, on a machine that is busy with other things too."""
SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs the tests in the background ignores it
import weightspace as ws
from weightspace.bench import Entry, Suite, run_suite

if __name__ == "__main__":
    entry = Entry("mlp", {"hidden": 4, "layers": 1})
    suite = Suite("long", {"a": entry, "b": entry}, ("none",), ws.TrainConfig(epochs=100_000, batch_size=16))
    run_suite(suite, sys.argv[1], sys.argv[2], workers=2)
"""


def children(pid: int) -> set[int]:
    """Return the processes that a process has started, and those that they have."""
    found = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in found.splitlines()]
    own, fresh = set[int](), {pid}
    while fresh := {child for child, parent in pairs if parent in fresh} - own:
        own |= fresh
    return own


def alive(pids: set[int]) -> set[int]:
    """Return the processes that still run; one that has ended and was not waited for does not."""
    found = subprocess.run(["ps", "-eo", "pid=,stat="], capture_output=True, text=True, check=True).stdout
    running = {int(line.split()[0]) for line in found.splitlines() if not line.split()[1].startswith("Z")}
    return pids & running


def until(met: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not met() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(met())


@pytest.mark.skipif(sys.platform == "win32", reason="signals and ps of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(
    number: signal.Signals, make_zoo: Callable[..., ws.Zoo], tmp_path: Path
) -> None:
    zoo = make_zoo(tmp_path / "zoo")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ws.__file__).parents[1])}
    with (tmp_path / "log").open("w") as log:
        run = subprocess.Popen(
            [sys.executable, str(script), str(zoo.path), str(tmp_path / "out")], stderr=log, env=environment
        )
        try:
            cells = [tmp_path / "out" / "cells" / f"{name}-none-0" / "last.ckpt" for name in ("a", "b")]
            assert until(lambda: all(cell.exists() for cell in cells)), (tmp_path / "log").read_text()
            workers = children(run.pid)
            assert len(workers) >= 2
            run.send_signal(number)
            code = run.wait(timeout=PATIENCE)
            assert until(lambda: not alive(workers)), f"left behind: {alive(workers)}"
        finally:
            run.kill()
            run.wait()
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert "KeyboardInterrupt" in (tmp_path / "log").read_text()


def test_a_process_that_the_system_ends_is_told_with_a_remedy() -> None:
    with worker_pool(1) as pool, pytest.raises(RuntimeError, match=r"got one that the system ended, .* fewer workers"):
        list(pool(os._exit, {"cell": (9,)}))


def test_sigterm_interrupts_inside_alone() -> None:
    def run() -> None:
        with sigterm_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        run()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_program_stays() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with sigterm_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_set_no_handler() -> None:
    seen: list[object] = []

    def run() -> None:
        with sigterm_interrupts():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
