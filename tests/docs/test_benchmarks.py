"""The benchmarks run, on sizes that measure nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import weightspace as ws
from benchmarks import (
    _common,
    activations,
    align,
    aligners,
    anchors,
    autoencoder,
    contrastive,
    editing,
    ensemble,
    fit,
    fit_zoo,
    memory,
    models,
    ours,
    recipes,
    resnets,
    train_step,
    transforms,
    zoo,
)
from benchmarks._fit_methods import by_kernel
from benchmarks.ensemble import copies

TINY = {
    fit: ["--networks", "2", "--steps", "2", "--repeats", "1", "--curves", "1", "--no-jax"],
    fit_zoo: ["--data", "embedded", "--counts", "4", "2", "2", "--out", "zoo"],
    activations: [
        *("--data", "embedded", "--counts", "24", "8", "8", "--epochs", "1", "--workers", "1"),
        *("--only", "relu", "--models", "typed-messages", "--folder", "activations"),
    ],
    recipes: ["--only", "meta", "siren", "--train", "12", "--epochs", "1"],
    train_step: ["--repeats", "1"],
    models: ["--repeats", "1", "--batch", "2", "--threads", "1", "--only", "ng-t", "functional"],
    transforms: [
        "--networks",
        "4",
        "--steps",
        "1",
        "--repeats",
        "1",
        "--seconds",
        "0",
        "--batches",
        "4",
        "--threads",
        "1",
    ],
    aligners: [
        *("--zoo", "nowhere", "--pairs", "2", "--train", "4", "--fit-steps", "1"),
        *("--steps", "1", "--repeats", "1", "--groups", "full"),
    ],
    autoencoder: ["--zoo", "nowhere", "--epochs", "1", "--threads", "1"],
    contrastive: ["--zoo", "nowhere", "--epochs", "1", "--threads", "1"],
    editing: ["--zoo", "nowhere", "--epochs", "1", "--threads", "1", "--models", "dwsnet"],
    anchors: [
        *("--zoo", "nowhere", "--networks", "4", "--held-out", "2", "--steps", "1", "--threads", "1"),
        *("--groups", "full", "--passes", "2", "--batches", "2", "--repeats", "2"),
    ],
    memory: ["--images", "60", "--steps", "1"],
    ours: ["--zoo", "nowhere", "--epochs", "1", "--threads", "1"],
    zoo: ["--networks", "50", "--shard-size", "16", "--repeats", "1"],
    resnets: ["--train", "300", "--epochs", "1", "--test", "100", "--width", "4", "--points", "3"],
    align: [
        *("--zoo", "nowhere", "--pairs", "4", "--few", "2", "--networks", "6"),
        *("--repeats", "1", "--steps", "1", "--threads", "1"),
    ],
}


@pytest.mark.parametrize("module", TINY, ids=lambda module: module.__name__)
def test_benchmark_runs(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if module in (activations, recipes, fit_zoo):  # they keep their zoos below the working folder
        monkeypatch.chdir(tmp_path)
    if module in (memory, recipes) and not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("the whole of Fashion-MNIST is not on this machine")
    monkeypatch.setattr(_common, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", [module.__name__, *TINY[module]])
    module.main()
    (written,) = tmp_path.glob("*.json")
    assert {"commit", "hardware", "benchmark"} <= set(json.loads(written.read_text()))


def test_kept_models_are_read_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_common, "RESULTS", tmp_path)
    name, kept = "forward-messages-long", str(tmp_path / "kept")
    for seed in ("0", "1"):
        options = ["--zoo", "nowhere", "--epochs", "1", "--threads", "1", "--only", name, "--seed", seed]
        monkeypatch.setattr("sys.argv", ["ours", *options, "--keep", kept, "--record", f"ours-{seed}"])
        ours.main()
    options = ["--zoo", "nowhere", "--kept", kept, "--model", name, "--seeds", "0", "1"]
    options += ["--shift", "0.07", "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["ensemble", *options])
    ensemble.main()
    record = json.loads((tmp_path / "ensemble.json").read_text())
    for seed in ("0", "1"):
        row = json.loads((tmp_path / f"ours-{seed}.json").read_text())["models"][name]
        assert record["members"][seed]["val"] == row["val_both_ways"]
    assert record["parameters"] == 2 * row["parameters"]
    assert set(record["ensemble"]) == set(record["ten_copies"]["members"]["1"]) == {"val", "test"}


def test_the_ten_copies_of_a_network_are_its_mirror_image_and_both_moved() -> None:
    spec = ws.siren(2, 8, 8, 1)
    w = ws.testing.random_weights(spec, 1, generator=torch.Generator().manual_seed(0))
    found = [ws.evaluate(copy(w, generator=torch.Generator()), torch.tensor([[0.2, 0.3]])) for copy in copies(0.5)]
    points = [(0.2, -0.3), (0.7, 0.3), (-0.3, 0.3), (0.2, 0.8), (0.2, -0.2)]
    points += [(0.7, -0.3), (-0.3, -0.3), (0.2, 0.2), (0.2, -0.8)]
    wanted = ws.evaluate(w, torch.tensor(points))[0]
    assert torch.allclose(torch.stack(found)[:, 0, 0], wanted, atol=1e-5)


def test_the_cost_of_recipes_is_measured_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("the whole of Fashion-MNIST is not on this machine")
    monkeypatch.setattr(_common, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["recipes", "--cost", "2", "--repeats", "1", "--only", "siren", "meta"])
    recipes.main()
    rows = json.loads((tmp_path / "recipes-cost.json").read_text())["rows"]
    assert set(rows) == {"siren", "meta"}
    assert rows["siren"]["psnr_db"] >= 40
    assert rows["siren"]["mean_steps"] < 1000 == 10 * rows["meta"]["mean_steps"]
    assert rows["meta"]["seconds_for_the_start"]["repeats"] == 1


def test_the_kernels_of_a_gpu_are_compared_on_any_device() -> None:
    table = {kernel: by_kernel(kernel, "cpu") for kernel in ("compiled", "torch")}
    record = fit.on_gpu(table, 3, 10, 2)
    assert record["networks_per_second_at_1000_steps"]["torch"]["repeats"] == 2
    assert abs(record["mean_psnr_db"]["compiled"] - record["mean_psnr_db"]["torch"]) < 0.01


def test_all_methods_fit_the_same_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_common, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["fit", *TINY[fit]])
    fit.main()
    record = json.loads((tmp_path / "fit.json").read_text())
    assert max(record["largest_difference_of_a_weight"].values()) < 1e-4
