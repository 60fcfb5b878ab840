"""The two walks of ``docs/architecture.md``: what networks pass from a shard to logits, and signals to a shard."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
import torch
from _helpers import generator, write_small_zoo

import weightspace as ws

ROOT = Path(ws.__file__).parent
NOUNS = ("_weights.py", "_networks.py", "_evaluate.py")
COMPILED = ("fitting/kernels/_cpu_kernel.py", "fitting/kernels/_cpu_vectors.py")
"""The files of the compiled fit, which a profiler of Python does not see; formulas and intrinsics are inlined there."""


def file_of(code: CodeType) -> str | None:
    """Return the file of a named function of the package, as a path in it."""
    path = Path(code.co_filename)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) and "<" not in code.co_name else None


def caller_of(frame: FrameType) -> str | None:
    """Return the file of the package from which a function was called."""
    back = frame.f_back
    while back is not None:
        if Path(back.f_code.co_filename).is_relative_to(ROOT):
            return Path(back.f_code.co_filename).relative_to(ROOT).as_posix()
        back = back.f_back
    return None


def any_of(value: Any, holds: Callable[[Any], bool]) -> bool:
    """Return whether a value, or a member of it, fulfils a condition."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, (tuple, list)) else ()
    return holds(value) or any(map(holds, members))


def arguments(frame: FrameType) -> list[Any]:
    code = frame.f_code
    return [frame.f_locals.get(name) for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]


class Profile:
    """Calls a function for every call and return of a function of the package, in all threads."""

    def __init__(self, see: Callable[[str, FrameType, str, Any], None]) -> None:
        self.see = see

    def __enter__(self) -> None:
        threading.setprofile(self.profile)
        sys.setprofile(self.profile)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)  # pyright: ignore[reportArgumentType]

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event in ("call", "return") and (name := file_of(frame.f_code)) is not None:
            self.see(name, frame, event, arg)


def doors_to_logits(zoo: ws.Zoo) -> list[tuple[str, str]]:
    """Return the functions through which networks pass in a training step: each called from another file than its own.

    Networks pass a function if it returns networks, or numbers with a gradient: features, outputs, the loss. The nouns'
    own methods are not counted.
    """
    found = dict[tuple[str, str], None]()

    def passes(value: Any) -> bool:
        return isinstance(value, (ws.Weights, ws.Networks)) or (isinstance(value, torch.Tensor) and value.requires_grad)

    def see(name: str, frame: FrameType, event: str, arg: Any) -> None:
        if event == "return" and name not in NOUNS and caller_of(frame) != name and any_of(arg, passes):
            found[name, frame.f_code.co_qualname] = None

    model = ws.models.DWSNet(zoo.spec, 3, hidden=8, layers=2, seed=0)
    ws.train(model, zoo, transform="permute", epochs=1, batch_size=40)  # the zoo's columns are mapped from now on
    with Profile(see):
        ws.train(model, zoo, transform="permute", epochs=1, batch_size=40)
    return list(found)


def files_to_shard(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the files whose functions take or return signals or networks until a shard is written, and the crossings.

    A crossing is a call between ``fitting`` and ``zoo`` that hands them over.
    """
    found, crossings, written = dict[str, None](), dict[tuple[str, str], None](), False
    nouns = (ws.signals.SignalSet, ws.Networks, ws.Weights)

    def passes(value: Any) -> bool:
        if isinstance(value, torch.Tensor):
            return value.is_floating_point() and value.ndim > 1
        if isinstance(value, np.ndarray):
            return value.dtype.kind == "f" and value.ndim > 1
        holder = is_dataclass(value) and any(isinstance(member, nouns) for member in vars(value).values())
        return isinstance(value, nouns) or holder

    def see(name: str, frame: FrameType, event: str, arg: Any) -> None:
        nonlocal written
        written = written or (event == "return" and frame.f_code.co_qualname == "ShardTarget.write")
        handed = arguments(frame) if event == "call" else [arg]
        if written or name in NOUNS or not any(any_of(value, passes) for value in handed):
            return
        found[name] = None
        caller, rooms = caller_of(frame), {"fitting", "zoo"}
        if caller is not None and {caller.split("/")[0], name.split("/")[0]} == rooms:
            crossings[name, frame.f_code.co_qualname] = None

    images = np.random.default_rng(0).random((6, 5, 5), dtype=np.float32)
    data, spec = ws.signals.ImageSet(images, labels=np.arange(6) % 2), ws.siren(2, 4, 1)
    with Profile(see):
        ws.fit_zoo(folder, data, spec, config=ws.FitConfig(steps=2), workers=1)
    return [*found, *COMPILED], list(crossings)


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table below a line of docs/architecture.md that begins so."""
    page = Path(__file__).parents[1].joinpath("docs", "architecture.md").read_text()
    rows = page.split(f"\n{heading}", 1)[1].split("\n|", 3)[3].split("\n\n")[0].split("\n")
    return [re.findall(r"`([^`]+)`", row) for row in rows]


def test_few_doors_from_a_shard_to_logits(tmp_path: Path) -> None:
    doors = doors_to_logits(write_small_zoo(tmp_path, ws.siren(2, 6, 6, 1), train=40))
    assert len(doors) <= 11
    assert sorted(doors) == sorted((file, name) for file, name in table("From a shard to logits"))


def test_few_files_from_a_signal_to_a_shard(tmp_path: Path) -> None:
    files, crossings = files_to_shard(tmp_path / "zoo")
    assert len(files) <= 14
    assert sorted(files) == sorted(name for row in table("From a signal to a shard") for name in row)
    assert crossings == [("zoo/_target.py", "ShardTarget.write")]
    assert all((ROOT / name).is_file() for name in COMPILED)


def test_a_detour_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = write_small_zoo(tmp_path, ws.siren(2, 6, 6, 1), train=40)
    apply, detour = ws.transforms.Permute.apply, ws.transforms.SignFlip()

    def longer(self: ws.transforms.Permute, weights: ws.Weights, draw: ws.Symmetry) -> ws.Weights:
        return apply(self, detour(weights, generator=generator()), draw)

    monkeypatch.setattr(ws.transforms.Permute, "apply", longer)
    assert len(doors_to_logits(zoo)) > 11
