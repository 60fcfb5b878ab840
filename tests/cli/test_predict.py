"""From files to predictions: zoos, weights, pictures, and what is said where nothing can be predicted."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers import labelled, run_command
from PIL import Image

import weightspace as ws

Run = Callable[..., tuple[int, str, str]]
TRAIN = ("--model", "mlp", "--hidden", "8", "--layers", "1", "--epochs", "2", "--val-fraction", "0.4")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *arguments: run_command(capsys, *arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with class folders of pictures, a zoo of them, and a trained run."""
    place, rng = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 3)):
        for name in ("cat", "dog"):
            folder = place / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 100, (5, 6)) + (150 if name == "dog" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    data = ws.datasets.load(place / "pictures")
    spec = ws.siren(2, 4, 1)
    zoo = ws.fit_zoo(place / "zoo", data, spec, config=ws.FitConfig(steps=5, lr=1e-2), workers=1)
    model = ws.models.MLP(spec, 2, hidden=8, layers=1, seed=0)
    ws.train(model, zoo, epochs=2, batch_size=8, val_fraction=0.4, run_dir=place / "run")
    return place


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text().splitlines()))


def test_networks_pictures_and_checkpoints_are_predicted_alike(run: Run, place: Path, tmp_path: Path) -> None:
    code, out, _ = run("predict", place / "run", place / "zoo", "--split", "test", "--csv", tmp_path / "zoo.csv")
    assert (code, out) == (0, f"wrote {tmp_path / 'zoo.csv'}\n")
    rows = table(tmp_path / "zoo.csv")
    assert list(rows[0]) == ["split", "source", "view", "name", "class", "probability", "p(cat)", "p(dog)"]
    assert all(float(r["p(cat)"]) + float(r["p(dog)"]) == pytest.approx(1) for r in rows)
    flat = tmp_path / "flat"
    flat.mkdir()
    data = ws.datasets.load(place / "pictures").split("test")
    assert [row["name"] for row in rows] == data.names.tolist()
    for name in data.names:
        shutil.copy(place / "pictures" / name, flat / name.replace("/", "-"))
    code, out, err = run("predict", place / "run", flat, "--workers", "1")
    assert code == 0, err
    assert "test-cat-0.png" in out
    assert "probability" in out
    code, _, _ = run("predict", place / "run", place / "pictures", "--csv", tmp_path / "p.csv", "--workers", "1")
    by_file = {row["file"]: row for row in table(tmp_path / "p.csv")}
    assert len(by_file) == 22
    again = [by_file[name]["probability"] for name in data.names]
    assert [float(p) for p in again] == pytest.approx([float(r["probability"]) for r in rows], abs=1e-5)
    assert run("export", place / "zoo", tmp_path / "files")[0] == 0
    code, _, _ = run("predict", place / "run", tmp_path / "files" / "test", "--csv", tmp_path / "files.csv")
    found = table(tmp_path / "files.csv")
    assert [row["file"] for row in found[:2]] == ["000000.pth", "000001.pth"]
    assert [row["probability"] for row in found] == [row["probability"] for row in rows]


def test_one_picture_of_another_size_and_colour(run: Run, place: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 31, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.jpg")
    code, out, err = run("predict", place / "run", tmp_path / "one.jpg", "--workers", "1")
    assert code == 0, err
    assert "one.jpg" in out


def test_scores_are_printed_and_written(run: Run, place: Path, tmp_path: Path) -> None:
    code, out, _ = run("evaluate", place / "run", place / "zoo", "--json", tmp_path / "scores.json")
    assert code == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert f"accuracy {100 * found['accuracy']:.2f} %" in out
    assert "confusion, in networks" in out
    assert [row["name"] for row in found["classes"]] == ["cat", "dog"]


def test_numbers_are_predicted_and_scored(run: Run, tmp_path: Path) -> None:
    spec = ws.siren(2, 4, 1)
    parts = {name: labelled(spec, count, seed=count) for name, count in (("train", 30), ("test", 50))}
    parts = {name: own.replace(label=own.weights.flat.mean(1)) for name, own in parts.items()}
    ws.zoo.write_zoo(tmp_path / "zoo", parts)
    out = ("--objective", "regression", "--out", tmp_path / "run")
    code, text, err = run("train", tmp_path / "zoo", *TRAIN, *out)
    assert code == 0, err
    assert "weightspace predict" in text
    code, text, _ = run("evaluate", tmp_path / "run", tmp_path / "zoo")
    assert code == 0
    assert all(word in text for word in ("R2 ", "Kendall's tau ", "mean absolute error "))
    code, text, _ = run("predict", tmp_path / "run", tmp_path / "zoo")
    assert "prediction" in text
    assert "and 40 more; --csv FILE writes all" in text


def test_a_run_without_a_folder_says_that_the_model_will_be_gone(run: Run, place: Path, tmp_path: Path) -> None:
    code, out, _ = run("train", place / "zoo", *TRAIN)
    assert code == 0
    assert "no --out: the model will be gone at the end" in out
    assert "will be gone" not in run("train", place / "zoo", *TRAIN, "--out", tmp_path / "run")[1]


def test_what_cannot_be_predicted_is_one_line(run: Run, place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    torch.save({"a": torch.zeros(3)}, tmp_path / "odd.pth")
    model = ws.models.DWSNet(ws.siren(2, 4, 1), 1, hidden=4, layers=1, head="equivariant", seed=0)
    ws.models.save_model(model, tmp_path / "edits")
    body = json.loads((place / "run" / "model.json").read_text())
    shutil.copytree(place / "run", tmp_path / "gone")
    (tmp_path / "gone" / "model.json").write_text(json.dumps({**body, "model": "gone_module:Model"}))
    for arguments, code, text in (
        ((tmp_path / "empty", place / "zoo"), 1, "expected model.json, as ws.models.save_model writes it"),
        ((place / "run", tmp_path / "empty"), 1, "got a folder of none of these"),
        ((place / "run", tmp_path / "odd.pth"), 1, "odd.pth: expected weights of siren(2-4-1"),
        ((place / "run", tmp_path / "empty", "--split", "test"), 2, "expected --split with a zoo"),
        ((place / "run", place / "zoo", "--split", "val"), 1, "split: expected one of"),
        (
            (tmp_path / "edits", place / "zoo"),
            1,
            "expected a model of classes or numbers, got one that returns weights",
        ),
        ((tmp_path / "gone", place / "zoo"), 1, "pass imports=True if you trust the file"),
    ):
        got = run("predict", *arguments)
        assert got[0] == code, got
        assert got[2].count("\n") == 1
        assert text in got[2]
    assert run("evaluate", place / "run", tmp_path / "empty")[0] == 1


def test_networks_are_embedded_mapped_and_searched(run: Run, place: Path, tmp_path: Path) -> None:
    files = ("--out", tmp_path / "features.npz", "--map", tmp_path / "map.png", "--clusters", "2")
    code, out, err = run("embed", place / "run", place / "zoo", *files, "--k", "3")
    assert code == 0, err
    assert "22 networks, 8 features each" in out
    assert all(text in out for text in ("linear probe: ", "3-NN: ", "2 clusters, adjusted Rand index"))
    found = np.load(tmp_path / "features.npz")
    assert found["features"].shape == (22, 8)
    assert set(found["split"].tolist()) == {"train", "test"}
    assert set(found["cluster"].tolist()) == {0, 1}
    with Image.open(tmp_path / "map.png") as drawn:
        assert min(drawn.size) > 100
    code, out, err = run(
        "neighbours", place / "run", place / "zoo", place / "zoo", "--k", "1", "--csv", tmp_path / "n.csv"
    )
    assert code == 0, err
    rows = list(csv.reader((tmp_path / "n.csv").read_text().splitlines()))[1:]
    assert all(row[3] == row[-1] for row in rows), "each network is its own nearest neighbour"
    for arguments, code, text in (
        (("embed", place / "run", place / "zoo", "--clusters", "99"), 2, "expected at most 22 clusters"),
        (("neighbours", place / "run", place / "zoo", place / "zoo", "--k", "99"), 1, "k: expected at most 22"),
        (("embed", place / "run", tmp_path), 1, "expected a zoo, a folder with a manifest.json"),
    ):
        got = run(*arguments)
        assert (got[0], got[2].count("\n")) == (code, 1), got
        assert text in got[2]
