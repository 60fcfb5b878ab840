"""Operations on zoos, killed at each event on the disk: the target is whole or absent, and nothing is left over."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace.fitting import add_views
from weightspace.zoo import (
    Zoo,
    copy,
    export_state_dicts,
    import_state_dicts,
    merge,
    sample,
    split,
    subset,
    verify,
    write_zoo,
)

SPEC = ws.siren(2, 3, 1)
CONFIG = ws.FitConfig(steps=1)
EVENTS = ("replace", "fsync", "mkdir", "rename", "unlink")
"""The calls of ``os`` by which a process changes the disk; a kill at any moment looks like one before some of them."""


def networks(count: int, first: int = 0) -> ws.Networks:
    flat = torch.randn(count, SPEC.num_params, generator=torch.Generator().manual_seed(first))
    return ws.Networks(ws.Weights(flat, SPEC), label=torch.arange(count) % 2, source=first + torch.arange(count))


def data() -> ws.signals.ImageSet:
    return ws.signals.ImageSet(np.random.default_rng(0).integers(0, 255, (3, 4, 4), dtype=np.uint8))


def fit(path: Path) -> Any:
    return ws.fit_zoo(path, data(), SPEC, config=CONFIG, shard_size=2, workers=1)


def a(folder: Path) -> Zoo:
    return Zoo.open(folder / "a")


OPERATIONS: dict[str, Callable[[Path], Any]] = {
    "write": lambda folder: write_zoo(folder / "out", train=networks(5), shard_size=2, extra={"more": b"x"}),
    "merge": lambda folder: merge([a(folder), Zoo.open(folder / "b")], folder / "out", shard_size=4),
    "subset": lambda folder: subset(a(folder), folder / "out", {"train": [3, 0]}, shard_size=1),
    "split": lambda folder: split(a(folder), folder / "out", {"train": 0.5, "test": 0.5}, shard_size=2),
    "sample": lambda folder: sample(
        a(folder), folder / "out", {"train": 2}, generator=torch.Generator().manual_seed(0)
    ),
    "align": lambda folder: ws.align.align_zoo(a(folder), folder / "out", a(folder).weights("train")[0], shard_size=3),
    "copy": lambda folder: copy("memory://killed", folder / "out"),
    "export": lambda folder: export_state_dicts(a(folder), folder / "out"),
    "import": lambda folder: import_state_dicts(folder / "dicts", folder / "out", shard_size=3),
    "fit": lambda folder: fit(folder / "out"),
    "add views": lambda folder: add_views(folder / "out", data(), 2, workers=1),
}
RESUMED = ("fit", "add views")


def prepare(folder: Path) -> None:
    write_zoo(folder / "a", train=networks(5), shard_size=2)
    write_zoo(folder / "b", train=networks(3, 50), shard_size=2)
    export_state_dicts(a(folder), folder / "dicts")
    copy(folder / "a", "memory://killed")
    fit(folder / "fitted")


def start(folder: Path, name: str) -> None:
    """Make the folder what it is before an operation; leftovers of killed ones stay."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    if name == "add views":
        shutil.copytree(folder / "fitted", folder / "out")


def content(path: Path) -> dict[str, Any]:
    """All files of a folder, and of the manifest all but the moment of creation."""
    found: dict[str, Any] = {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }
    if "manifest.json" in found:
        found["manifest.json"] = json.loads(found["manifest.json"])
        del found["manifest.json"]["provenance"]["created"]
    return found


def die_at(event: int) -> None:
    """End this process by SIGKILL before its next change of the disk but ``event``."""

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal event
            event -= 1
            if event < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return counted

    for name in EVENTS:
        setattr(os, name, counting(getattr(os, name)))


def killed(operation: Callable[[], Any], event: int) -> bool:
    """Run an operation in a process of its own, killed at an event; whether it came so far."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at(event)
            operation()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the operation failed"
    return os.WIFSIGNALED(status)


def trials(folder: Path, name: str) -> dict[str, Any]:
    """Kill an operation at each of its events, and say how often it left what it should not."""
    start(folder, name)
    OPERATIONS[name](folder)
    expected, out = content(folder / "out"), folder / "out"
    count, half = 0, 0
    start(folder, name)
    while killed(lambda: OPERATIONS[name](folder), count):
        count += 1
        if name in RESUMED:
            assert not killed(lambda: OPERATIONS[name](folder), 10**9)  # the same command again
        half += out.exists() and content(out) != expected
        start(folder, name)
    start(folder, name)
    OPERATIONS[name](folder)  # as the last one left it, where it goes on, or anew
    differing = content(out) != expected
    if name != "export":
        differing += verify(Zoo.open(out, verify=True)) != []
    if name == "align":
        back = ws.align.alignment(Zoo.open(out), "train").inverse().act(Zoo.open(out).weights("train"))
        differing += not torch.allclose(back.flat, a(folder).weights("train").flat, atol=1e-5)
    hidden = [path.name for path in folder.rglob(".*")]
    return {"kills": count, "half": half, "differing": int(differing), "hidden": hidden}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Run all trials in one process that has done nothing else, and so may be forked."""
    script = """if True:
        import json, pathlib, sys
        sys.path.insert(0, sys.argv[1])
        import test_killed as t

        t.torch.set_num_threads(1)
        folder = pathlib.Path(sys.argv[2])
        t.prepare(folder)
        print(json.dumps({name: t.trials(folder, name) for name in t.OPERATIONS}))
    """
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path_factory.mktemp("killed"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_killed_at_each_event(outcomes: dict[str, dict[str, Any]], name: str) -> None:
    found = outcomes[name]
    assert found["kills"] > 8
    assert {**found, "kills": 0} == {"kills": 0, "half": 0, "differing": 0, "hidden": []}
