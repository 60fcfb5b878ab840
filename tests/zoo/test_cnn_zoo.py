"""The published zoo of small CNNs, in miniature files of the true format: the same functions, labels, columns."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import weightspace as ws
from weightspace import cli
from weightspace.zoo import import_cnn_zoo

SHAPES = [
    ("sequential/conv2d/bias:0", (4,)),
    ("sequential/conv2d/kernel:0", (3, 3, 1, 4)),
    ("sequential/conv2d_1/bias:0", (5,)),
    ("sequential/conv2d_1/kernel:0", (3, 3, 4, 5)),
    ("sequential/dense/bias:0", (10,)),
    ("sequential/dense/kernel:0", (5, 10)),
]
STEPS = (0, 20, 86)
HEAD = ("config.activation", "config.l2reg", "modeldir", "step", "test_accuracy", "train_accuracy")


def write(folder: Path, runs: int = 4, shapes: Any = SHAPES, **replaced: Any) -> np.ndarray:
    """Write the three files: runs of three steps each, in no order, and return the array."""
    size = sum(int(np.prod(shape)) for _, shape in shapes)
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(runs * len(STEPS), size)).astype(np.float32)
    start, layout = 0, [("varname", "start_idx", "end_idx", "size", "shape")]
    for name, shape in shapes:
        count = int(np.prod(shape))
        layout.append((name, start, start + count, count, str(shape)))
        start += count
    rows = [
        ("relu" if run % 2 else "tanh", 10.0**-run, f"/models/{run}", step, run / 10 + step / 1000, 0.5)
        for run in range(runs)
        for step in STEPS
    ]
    order = rng.permutation(len(rows))
    files = {"layout.csv": layout, "metrics.csv": [HEAD, *(rows[i] for i in order)], **replaced}
    for name, lines in files.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    np.save(folder / "weights.npy", flat[order])
    return flat


def outputs(flat: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Compute the outputs of the published networks by NumPy, in TensorFlow's order of axes."""
    parts, start = [], 0
    for _, shape in SHAPES:
        parts.append(flat[start : start + int(np.prod(shape))].reshape(shape))
        start += parts[-1].size
    h = x[:, :, :, None]
    for bias, kernel in ((parts[0], parts[1]), (parts[2], parts[3])):
        side = h.shape[1] - 2
        windows = np.stack([h[:, i : i + side, j : j + side] for i in range(3) for j in range(3)], 3)
        h = np.maximum(np.einsum("nxyki,kio->nxyo", windows, kernel.reshape(9, *kernel.shape[2:])) + bias, 0)
    return h.mean((1, 2)) @ parts[5] + parts[4]


def test_the_networks_are_the_same_functions(tmp_path: Path) -> None:
    flat = write(tmp_path)
    zoo = import_cnn_zoo(tmp_path, tmp_path / "zoo")
    networks = zoo["train"]
    assert len(networks) == 4
    x = np.random.default_rng(1).normal(size=(2, 9, 9)).astype(np.float32)
    for i in range(4):
        state = networks.weights.state_dict(i)
        h = torch.as_tensor(x)[:, None]
        for layer in (0, 1):
            h = F.relu(F.conv2d(h, state[f"{layer}.weight"], state[f"{layer}.bias"]))
        y = F.linear(h.mean((2, 3)), state["2.weight"], state["2.bias"])
        run = int(zoo.table("train")["modeldir"][i].rpartition("/")[2])
        np.testing.assert_allclose(y.numpy(), outputs(flat[3 * run + 2], x), atol=1e-4)


def test_labels_are_accuracies_and_the_rest_are_columns(tmp_path: Path) -> None:
    write(tmp_path)
    zoo = import_cnn_zoo(tmp_path, tmp_path / "zoo")
    networks, table = zoo["train"], zoo.table("train")
    run = torch.tensor([int(name.rpartition("/")[2]) for name in table["modeldir"]])
    torch.testing.assert_close(networks.label.double(), (run / 10 + 0.086).double(), atol=1e-6, rtol=0)
    assert sorted(run.tolist()) == [0, 1, 2, 3]
    assert [*table["activation"]] == ["relu" if r % 2 else "tanh" for r in run]
    np.testing.assert_allclose(table["l2reg"], 10.0 ** -run.numpy())
    assert {*table} >= {"step", "train_accuracy"}
    every = import_cnn_zoo(tmp_path, tmp_path / "every", last=False, label="train_accuracy")
    assert every.views("train").tolist() == [0, 1, 2] * 4
    assert every.table("train")["step"].reshape(4, 3).tolist() == [[0, 20, 86]] * 4
    assert {*every.labels("train").tolist()} == {0.5}
    # hidden axes are permuted, and nothing else is
    moved = ws.transforms.Permute()(networks.weights, generator=torch.Generator().manual_seed(0))
    assert not moved.flat.equal(networks.weights.flat)
    with pytest.raises(ValueError, match="sign"):
        ws.transforms.SignFlip().check(zoo.spec)


def test_a_model_learns_accuracies_from_it(tmp_path: Path) -> None:
    write(tmp_path, runs=30)
    zoo = import_cnn_zoo(tmp_path, tmp_path / "zoo")
    model = ws.models.build("nfn-np", zoo.spec, 1, hidden=4, layers=1, seed=0)
    assert np.isfinite(ws.train(model, zoo, objective="regression", epochs=2, batch_size=8).val)


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["import", str(tmp_path), str(tmp_path / "zoo")])
    assert "4" in capsys.readouterr().out
    assert ws.Zoo.open(tmp_path / "zoo").count("train") == 4


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (
            lambda f: (f / "weights.npy").unlink(),
            FileNotFoundError,
            "weights.npy: expected layout.csv, metrics",
        ),
        (lambda f: (f / "weights.npy").write_bytes(b"x"), ValueError, "weights.npy: expected a NumPy array"),
        (lambda f: np.save(f / "weights.npy", np.zeros((12, 3))), ValueError, r"expected \[12, \d+\] real numbers, as"),
        (
            lambda f: np.save(f / "weights.npy", np.array([{}], dtype=object), allow_pickle=True),
            ValueError,
            "weights.npy: expected a NumPy array",
        ),
        (lambda f: (f / "metrics.csv").write_text(""), ValueError, "metrics.csv: expected a row for every network"),
        (lambda f: (f / "metrics.csv").write_bytes(b"a\n\xff\n"), ValueError, "metrics.csv: expected a table in UTF-8"),
        (
            lambda f: (f / "layout.csv").write_text("a,b\n1,2\n"),
            ValueError,
            "expected columns varname",
        ),
        (
            lambda f: write(f, shapes=[*SHAPES[:-1], ("sequential/dense/kernel:0", (20, 10))]),
            ValueError,
            "to read the 5 outputs before it, got 20; positions that are kept apart are not read",
        ),
        (
            lambda f: write(f, shapes=[("lost/bias:0", (4,)), *SHAPES[1:]]),
            ValueError,
            "layout.csv: expected a kernel beside 'lost/bias:0', got none",
        ),
        (
            lambda f: _replace(f / "layout.csv", "(5, 10)", "(" * 300),
            ValueError,
            "expected columns varname",
        ),
        (
            lambda f: _replace(f / "layout.csv", "(5, 10)", "(5, -10)"),
            ValueError,
            "expected columns varname",
        ),
        (lambda f: _replace(f / "layout.csv", ",4,40,", ",5,40,"), ValueError, "to begin at 4, got 5"),
        (lambda f: _replace(f / "metrics.csv", "modeldir", "dir"), ValueError, "expected a column 'modeldir'"),
        (lambda f: _replace(f / "metrics.csv", ",86,", ",late,"), ValueError, "expected numbers in the column 'step'"),
        (lambda f: _replace(f / "metrics.csv", "0.186,", "good,"), ValueError, "numbers in the column 'test_accuracy'"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path: Path, spoil: Any, error: Any, match: str) -> None:
    write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(error, match=match):
        import_cnn_zoo(tmp_path, tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
