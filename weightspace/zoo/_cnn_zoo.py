"""Read the published zoo of small CNNs: an array of all weights, a table of its columns, a table of the networks."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weightspace._networks import Networks
from weightspace._spec import Axis, NetSpec, Param
from weightspace._weights import Weights
from weightspace.zoo._csv import read_csv
from weightspace.zoo._write import write_zoo
from weightspace.zoo._zoo import Zoo

LAYOUT, METRICS, WEIGHTS = "layout.csv", "metrics.csv", "weights.npy"
MOST_DIMENSIONS = 4
CITATION = "Unterthiner, Keysers, Gelly, Bousquet and Tolstikhin, Predicting Neural Network Accuracy from Weights, 2020"


@dataclass(frozen=True)
class _Variable:
    """A tensor of the flat array, with TensorFlow's order of axes."""

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)

    @property
    def ours(self) -> tuple[int, ...]:
        """The order of axes in which outputs come first, then inputs, then the kernel."""
        n = len(self.shape)
        return (n - 1, n - 2, *range(n - 2)) if n > 1 else (0,)


def import_cnn_zoo(folder: str | Path, out: str | Path, *, label: str = "test_accuracy", last: bool = True) -> Zoo:
    """Turn the published zoo of small CNNs into a zoo whose labels are accuracies.

    ``weights.npy`` has a row for each network, ``layout.csv`` the place and shape of each variable in it, and
    ``metrics.csv`` a row of measurements and hyper-parameters for each network. Kernels are brought into torch's order
    of axes. Hidden axes have permutations alone, because the networks' activations differ. All networks come into the
    split "train"; :func:`split` and ``weightspace split`` divide it by runs.

    Args:
        folder: the folder of the three files.
        out: folder of the zoo, new or empty.
        label: column of ``metrics.csv`` that becomes the label.
        last: whether to keep the last step of each run alone; else all, as views of one source.

    Returns:
        The zoo. The other columns of ``metrics.csv`` are its further columns, without the beginning ``"config."``.

    Raises:
        FileNotFoundError: if one of the files is not there.
        ValueError: for files that do not fit each other, a missing column, or layers other than convolutions that are
            pooled over all positions and then read by linear layers.

    Example:
        >>> zoo = import_cnn_zoo("cifar10_gs", "zoo")  # doctest: +SKIP

    Reference:
        Unterthiner, Keysers, Gelly, Bousquet and Tolstikhin, *Predicting Neural Network Accuracy from Weights*, 2020,
        and the files that its authors released.
    """
    folder = Path(folder)
    if missing := [name for name in (LAYOUT, METRICS, WEIGHTS) if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder / missing[0]}: expected {LAYOUT}, {METRICS} and {WEIGHTS}, got no such file")
    variables = _variables(folder / LAYOUT)
    spec = _spec(folder / LAYOUT, variables)
    rows = read_csv(folder / METRICS)
    try:
        flat = np.load(folder / WEIGHTS, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{folder / WEIGHTS}: expected a NumPy array, got something else: {error}") from error
    if flat.shape != (len(rows), variables[-1].stop) or flat.dtype.kind != "f":
        raise ValueError(
            f"{folder / WEIGHTS}: expected {[len(rows), variables[-1].stop]} real numbers, as {METRICS} and {LAYOUT} "
            f"say, got {list(flat.shape)} of {flat.dtype}"
        )
    for name in ("modeldir", "step", label):
        if name not in rows[0]:
            raise ValueError(f"{folder / METRICS}: expected a column {name!r}, got {list(rows[0])}")
    chosen, source, view = _chosen(folder / METRICS, rows, last)
    kept = np.array(flat[chosen], dtype=np.float32)
    parts = [kept[:, v.start : v.stop].reshape(-1, *v.shape).transpose(0, *(1 + i for i in v.ours)) for v in variables]
    weights = Weights(torch.as_tensor(np.concatenate([p.reshape(len(kept), -1) for p in parts], 1)), spec)
    columns = {name: _column([rows[i][name] for i in chosen]) for name in rows[0]}
    accuracy = columns.pop(label)
    if accuracy.dtype.kind != "f":
        raise ValueError(f"{folder / METRICS}: expected numbers in the column {label!r}, got {rows[0][label]!r}")
    own = {name.removeprefix("config."): value for name, value in columns.items()}
    networks = Networks(weights, torch.as_tensor(accuracy), torch.tensor(source), torch.tensor(view), columns=own)
    return write_zoo(out, train=networks, provenance={"data": folder.name, "citation": CITATION, "label": label})


def _variables(path: Path) -> list[_Variable]:
    """Read the variables in the order of the array, which they must fill."""
    found = []
    for row in read_csv(path):
        try:
            shape = ast.literal_eval(row["shape"])
            shape = tuple(shape) if isinstance(shape, Iterable) else (shape,)
            if not 1 <= len(shape) <= MOST_DIMENSIONS or not all(type(size) is int and size > 0 for size in shape):
                raise ValueError(f"shape {row['shape']!r}")
            found.append(_Variable(row["varname"], int(row["start_idx"]), shape))
        except (KeyError, ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(
                f"{path}: expected columns varname, start_idx and shape of whole numbers, got {str(error)[:100]!r}"
            ) from error
    found.sort(key=lambda variable: variable.start)
    place = 0
    for variable in found:
        if variable.start != place:
            raise ValueError(f"{path}: expected {variable.name!r} to begin at {place}, got {variable.start}")
        place = variable.stop
    return found


def _spec(path: Path, variables: Sequence[_Variable]) -> NetSpec:
    """Return the spec of convolutions and linear layers in turn, each with a bias behind its kernel or before it."""
    kernels = [v for v in variables if len(v.shape) > 1]
    hidden = len(kernels) - 1
    axes = {"in": Axis("in", kernels[0].shape[-2] if kernels else 1)}
    before, layer = "in", 0
    layers: dict[str, tuple[int, str]] = {}
    for kernel in kernels:
        after = "out" if layer == hidden else f"h{layer + 1}"
        if kernel.shape[-2] != axes[before].size:
            raise ValueError(
                f"{path}: expected {kernel.name!r} to read the {axes[before].size} outputs before it, got "
                f"{kernel.shape[-2]}; positions that are kept apart are not read"
            )
        axes[after] = Axis(after, kernel.shape[-1], None if after == "out" else "other")
        layers[kernel.name.rpartition("/")[0]] = (layer, after)
        before, layer = after, layer + 1
    params = []
    for v in variables:
        owner = v.name.rpartition("/")[0]
        if owner not in layers:
            raise ValueError(f"{path}: expected a kernel beside {v.name!r}, got none")
        layer, after = layers[owner]
        if len(v.shape) == 1:
            if v.shape[0] != axes[after].size:
                raise ValueError(f"{path}: expected {v.name!r} of {axes[after].size} numbers, got {v.shape[0]}")
            params.append(Param(f"{layer}.bias", (after,), "bias"))
            continue
        sides = []
        for size in v.shape[:-2]:
            axes.setdefault(f"k{size}", Axis(f"k{size}", size))
            sides.append(f"k{size}")
        source = "in" if layer == 0 else f"h{layer}"
        params.append(Param(f"{layer}.weight", (after, source, *sides)))
    try:
        return NetSpec(tuple(axes.values()), tuple(params))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _chosen(path: Path, rows: Sequence[dict[str, str]], last: bool) -> tuple[list[int], list[int], list[int]]:
    """Return the rows that are kept, the number of the run of each, and its place among the run's steps."""
    try:
        steps = [float(row["step"]) for row in rows]
    except ValueError as error:
        raise ValueError(f"{path}: expected numbers in the column 'step', got {str(error)[:100]!r}") from error
    runs: dict[str, list[int]] = {}
    for number in sorted(range(len(rows)), key=lambda i: steps[i]):
        runs.setdefault(rows[number]["modeldir"], []).append(number)
    order = {run: number for number, run in enumerate(dict.fromkeys(row["modeldir"] for row in rows))}
    kept = {run: own[-1:] if last else own for run, own in runs.items()}
    found = sorted((order[run], view, i) for run, own in kept.items() for view, i in enumerate(own))
    return [i for _, _, i in found], [source for source, _, _ in found], [view for _, view, _ in found]


def _column(values: Sequence[str]) -> np.ndarray[Any, Any]:
    try:
        return np.array([float(value) for value in values], dtype=np.float64)
    except ValueError:
        return np.array(values)
