"""The benchmarks run, at sizes that measure nothing."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import weightspace as ws
from benchmarks import _common, _synthetic, aligners, fit, gpu, models, picture, studies, suites
from weightspace.bench import run_suite
from weightspace.bench._record import Result, read_result
from weightspace.bench._sizes import RELEASED

ROOT = Path(__file__).parents[2]
TINY: dict[str, list[str]] = {
    "fit": ["--networks", "2", "--steps", "2", "--repeats", "1", "--curves", "1", "--no-jax"],
    "fit_zoo": ["--data", "embedded", "--counts", "4", "2", "2", "--out", "zoo"],
    "align": [
        *("--zoo", "nowhere", "--pairs", "4", "--few", "2", "--networks", "6"),
        *("--repeats", "1", "--steps", "1", "--threads", "1"),
    ],
    "aligners": [
        *("--zoo", "nowhere", "--pairs", "2", "--train", "4", "--fit-steps", "1"),
        *("--steps", "1", "--repeats", "1", "--groups", "full"),
    ],
    "transforms": [
        *("--networks", "4", "--steps", "1", "--repeats", "1", "--seconds", "0", "--batches", "4", "--threads", "1"),
    ],
    "zoo": ["--networks", "50", "--shard-size", "16", "--repeats", "1"],
    "models": ["--repeats", "1", "--batch", "2", "--threads", "1", "--only", "ng-t", "render-cnn"],
    "studies": [
        *("activations", "--data", "embedded", "--counts", "24", "8", "8", "--epochs", "1", "--workers", "1"),
        *("--only", "relu", "--models", "typed-messages", "--folder", "activations"),
    ],
    "resnets": ["--train", "300", "--epochs", "1", "--test", "100", "--width", "4", "--points", "3"],
}
ELSEWHERE = {"picture", "make_embedded", "gpu"}
"""Scripts that write no record of their own under ``benchmarks/results``."""
LARGE = "/usr/share/datasets/fashion-mnist"
whole_data = pytest.mark.skipif(not Path(LARGE).exists(), reason="the whole of Fashion-MNIST is not on this machine")
Run = Callable[..., dict[str, Any]]


def scripts() -> set[str]:
    """Return the names of the scripts that are run."""
    return {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if not path.stem.startswith("_") and "def main()" in path.read_text()
    }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a script; return the record that it writes."""

    def call(name: str, *arguments: str, record: str | None = None) -> dict[str, Any]:
        if name in ("fit_zoo", "studies"):  # they keep their zoos below the working folder
            monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(_common, "RESULTS", tmp_path / "results")
        monkeypatch.setattr(studies, "RESULTS", tmp_path / "results")
        monkeypatch.setattr("sys.argv", [name, *arguments])
        importlib.import_module(f"benchmarks.{name}").main()
        return json.loads((tmp_path / "results" / f"{record or name}.json").read_text())

    return call


def test_at_most_twelve_scripts_and_all_of_them_tested() -> None:
    assert scripts() == set(TINY) | ELSEWHERE
    assert len(scripts()) <= 12


@pytest.mark.parametrize("name", TINY)
def test_a_script_writes_its_record(name: str, run: Run) -> None:
    record = run(name, *TINY[name], record="activations" if name == "studies" else None)
    assert {"commit", "hardware", "versions", "benchmark"} <= set(record)
    assert record["benchmark"] == name
    if name == "fit":  # all methods fit the same networks
        assert max(record["largest_difference_of_a_weight"].values()) < 1e-4


def test_every_record_names_a_script_or_a_suite() -> None:
    for path in (ROOT / "benchmarks/results").glob("*.json"):
        record = json.loads(path.read_text())
        if record.get("kind") == "bench":
            assert Result.from_json(record).suite_version is not None, path.name
        elif not record["benchmark"].startswith("redesign-"):  # those compare version 0.2.0 with 0.1.0, once
            assert record["benchmark"] in scripts(), path.name


def test_records_hold_no_histories_and_few_lines() -> None:
    for path in (ROOT / "benchmarks/results").glob("*.json"):
        assert '"history"' not in path.read_text(), path.name
        assert len(path.read_text().splitlines()) < 800, path.name


# --- single scripts


def test_transformers_are_compared_along_the_line(run: Run) -> None:
    rows = run("resnets", "transformers", "--pairs", "1", "--steps", "3", "--points", "3", record="transformers")[
        "rows"
    ]
    assert [row["task"] for row in rows] == ["vision transformer", "decoder"]
    for row in rows:
        before, after = row["full"]["distance"]
        assert after < row["permutation"]["distance"][1] < before
        for group in ("permutation", "full"):  # the ends are the networks themselves
            assert row[group]["loss"][::2] == pytest.approx(row["before"]["loss"][::2], abs=1e-3)


def test_a_zoo_is_trained_on_from_its_files_and_from_memory_with_the_same_result(run: Run, tmp_path: Path) -> None:
    options = ("--larger", "--networks", "2000", "--shard-size", "300", "--folder", str(tmp_path))
    rows = run("zoo", *options, record="redesign-memory")["rows"]
    assert [row["networks"] for row in rows] == [200, 200, 2000, 2000]
    for mapped, resident in (rows[:2], rows[2:]):
        assert (mapped["weights"], resident["weights"]) == ("read from the mapped files", "held in memory")
        assert (mapped["loss"], mapped["learned_sha256"]) == (resident["loss"], resident["learned_sha256"])


@whole_data
def test_the_cost_of_recipes_is_measured_alone(run: Run) -> None:
    options = ("--recipes", "2", "--repeats", "1", "--only", "siren", "meta")
    rows = {row["recipe"]: row for row in run("fit", *options, record="recipes-cost")["rows"]}
    assert set(rows) == {"siren", "meta"}
    assert rows["siren"]["psnr_db"] >= 40
    assert rows["siren"]["seconds_for_the_start"] is None
    assert rows["meta"]["seconds_for_the_start"]["repeats"] == 1


@whole_data
def test_the_memory_of_fitting_and_training_is_measured(run: Run) -> None:
    record = run("zoo", "--memory", "--images", "60", "--steps", "1", record="memory")
    assert record["fit"]["networks"] == record["train"]["networks"] == 70
    assert min(record["fit"]["peak_mb"], record["train"]["peak_mb"]) > 50


def test_synthetic_views_are_measured_and_written(run: Run, tmp_path: Path) -> None:
    rows = run("fit", "--synthetic", "2", record="synthetic-views")["rows"]
    assert [row["kind"] for row in rows[:2]] == ["another fit of the image", "a fit of another image"]
    assert {(row["directions"], row["returns_to"]) for row in rows[2:]} == set(
        itertools.product(("any", "flat"), ("the network's own outputs", "the image"))
    )
    assert all(row["cost"] > 0 and row["distance"] > 0 for row in rows[2:])
    options = {"config": ws.FitConfig(steps=2), "counts": {"train": 3, "test": 2}}
    zoo = ws.fit_zoo(tmp_path / "zoo", ws.datasets.embedded(), ws.siren(2, 4, 1), **options)
    _synthetic.write_zoo(zoo.path, tmp_path / "out", 3)
    out = ws.Zoo.open(tmp_path / "out")
    assert out.views("train").tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert out["train"][:3].weights.flat.equal(zoo["train"].weights.flat)
    assert out.count("test") == 2


def test_references_are_compared_by_networks_not_seen(run: Run) -> None:
    options = ["--references", "--zoo", "nowhere", "--train", "4", "--held-out", "2", "--fit-steps", "1"]
    options += ["--groups", "full", "--passes", "2", "--batches", "2", "--repeats", "2"]
    (zoo,) = run("aligners", *options, record="anchors")["zoos"]
    assert [row["reference"] for row in zoo["rows"]] == ["one network", "iterated mean", "learned"]
    assert len(aligners.makers([1, 3], [8, 32])) == 1 + 2 + 4


def test_rows_of_models_that_are_left_out_are_kept(run: Run) -> None:
    options = ("--repeats", "1", "--batch", "2", "--threads", "1", "--only")
    run("models", *options, "statistics")
    rows = run("models", *options, "mlp")["rows"]
    assert [row["model"] for row in rows] == ["statistics", "mlp"]
    assert {kind for kind, _ in RELEASED.values()} >= set(models.SMALLER)


def test_a_study_of_recipes_matches_every_zoo(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "GROUPS", ("full",))
    monkeypatch.setitem(ws.fitting.RECIPES, "dws", ws.FitConfig(steps=2))
    options = ("--data", "embedded", "--counts", "24", "8", "8", "--epochs", "1", "--workers", "1")
    record = run("studies", "recipes", "--only", "dws", "--models", "mlp", *options, record="recipes")
    assert list(record["zoos"]) == ["dws", "dws, matched over full"]
    assert [(row["zoo"], row["model"]) for row in record["rows"]] == [("dws", "mlp"), ("dws, matched over full", "mlp")]


def test_rows_of_the_same_experiment_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_common, "RESULTS", tmp_path)
    assert _common.earlier_rows("x", {"epochs": 1}, "zoo", []) == []
    _common.save("x", {"epochs": 1, "rows": [{"zoo": "a", "val": 1}, {"zoo": "b", "val": 2}]})
    assert _common.earlier_rows("x", {"epochs": 1}, "zoo", ["b"]) == [{"zoo": "a", "val": 1}]
    assert _common.earlier_rows("x", {"epochs": 2}, "zoo", ["b"]) == []


# --- suites of single experiments, and the picture


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> ws.Zoo:
    """Fit a few images, briefly."""
    images = ws.datasets.embedded().subset(range(40))
    coords, targets = ws.signals.images(images)
    w = ws.fit(coords, targets, ws.siren(2, 8, 8, 1), steps=5, seed=0).weights
    networks = ws.Networks(w, label=torch.as_tensor(images.labels))
    parts = {"train": networks[:24], "val": networks[24:32], "test": networks[32:]}
    return ws.zoo.write_zoo(tmp_path_factory.mktemp("suites") / "zoo", parts)


FEW = {"labels": suites.FewLabels((0.5, 1.0), epochs=1, steps=1)}
SELF_SUPERVISED = replace(
    suites.SELF_SUPERVISED,
    entries={name: replace(entry, evaluations=FEW) for name, entry in suites.SELF_SUPERVISED.entries.items()},
)


@pytest.mark.parametrize(
    ("suite", "entries", "evaluations"),
    [
        (suites.EDITING, ["dwsnet-dilate"], {"unchanged"}),
        (suites.CONTRASTIVE, ["dwsnet"], {"linear-probe"}),
        (SELF_SUPERVISED, ["dwsnet-copies", "dwsnet-fits"], {"labels"}),
        (
            suites.RECONSTRUCTION,
            ["forward-messages-untrained"],
            {"linear-probe", "mean-picture"},
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_suite_of_one_experiment_runs(
    suite: Any, entries: list[str], evaluations: set[str], zoo: ws.Zoo, tmp_path: Path
) -> None:
    short = {n: replace(e, train={**e.train, "epochs": 1}) for n, e in suite.entries.items() if n in entries}
    path = run_suite(replace(suite, entries=short), zoo.path, tmp_path, workers=1)
    rows = {row.model: row for row in read_result(path).rows}
    assert set(rows) == set(entries)
    for row in rows.values():
        assert row.objective is not None
        assert row.test_mean is not None
        assert set(row.evaluations) == evaluations
    if suite is SELF_SUPERVISED:
        return  # has no record yet
    committed = read_result(ROOT / "benchmarks/results" / f"{suite.name}.json")
    assert {row.model for row in committed.rows} <= set(suite.entries)
    for row in committed.rows:
        entry = suite.entries[row.model]
        assert (row.options, row.train_options) == (dict(entry.options), dict(entry.train)), row.model


def test_the_picture_of_the_readme_is_drawn(zoo: ws.Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.argv", ["picture", str(zoo.path), "--out", str(tmp_path / "picture.png")])
    picture.main()
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_controls_train_no_parameter(zoo: ws.Zoo) -> None:
    """The batch norms see the networks, and everything else stays as it began."""
    entry = suites.RECONSTRUCTION.entries["forward-messages-untrained"]
    model = suites.autoencoder(zoo.spec, 16, seed=0, **entry.options)
    before = {name: value.clone() for name, value in model.named_parameters()}
    ws.train(model, zoo, objective=entry.objective, batch_size=8, **entry.train)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, before[name], atol=1e-8, rtol=1e-6)


def test_a_linear_probe_finds_classes_that_are_there(zoo: ws.Zoo) -> None:
    labels = {split: zoo.labels(split) for split in zoo.splits}
    outputs = {split: torch.nn.functional.one_hot(own, 10).float() for split, own in labels.items()}
    rows = {tuple(zoo[s].weights.flat[i, :4].tolist()): outputs[s][i] for s in zoo.splits for i in range(zoo.count(s))}

    class Told(torch.nn.Module):
        def forward(self, weights: ws.Weights) -> torch.Tensor:
            return torch.stack([rows[tuple(row[:4].tolist())] for row in weights.flat])

    found = suites.LinearProbe()(Told(), zoo, "cpu")
    assert found["val"] > 0.8
    blind = suites.LinearProbe()(torch.nn.Sequential(Told(), torch.nn.Threshold(9.0, 0.5)), zoo, "cpu")
    assert blind["val"] < 0.6


def test_edits_change_pictures_as_they_say() -> None:
    picture = torch.zeros(1, 28 * 28, 1)
    picture[0, 28 * 14 + 14] = 1.0
    assert suites.dilate(picture).sum() == 9
    assert suites.contrast(picture).unique().tolist() == [-0.5, 1.5]


# --- the run on a GPU


def test_the_gpu_run_ends_on_any_machine_and_writes_one_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path), "--seconds", "900", "--tiny"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1000)
    assert run.returncode == 0, run.stderr
    record = json.loads((tmp_path / "gpu.json").read_text())
    log = (tmp_path / "gpu.log").read_text()
    assert [(step["step"], step["status"]) for step in record["steps"]] == [(s, "done") for s in gpu.SHARES], log
    errors = [row for step in record["steps"] for row in step["rows"] if "error" in row]
    assert errors == [], log
    assert "sizes that measure nothing" in run.stdout
    assert record["tiny"] is True
    assert {path.name for path in tmp_path.iterdir()} == {"gpu.json", "gpu.log"}
    if not torch.cuda.is_available():
        assert record["note"].startswith("no CUDA device")
    rows = {step["step"]: step["rows"] for step in record["steps"]}
    agreeing = [row["largest_difference_of_a_weight"] for row in rows["fit"] if "difference" in str(row)]
    assert len(agreeing) == 3
    assert max(agreeing) < 1e-4


def test_a_step_without_time_is_left_out_and_one_that_breaks_ends_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path), "--seconds", "1", "--tiny"]
    subprocess.run([*command, "--only", "fit", "align"], cwd=ROOT, check=True, capture_output=True, timeout=60)
    steps = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert {step["status"] for step in steps} == {"left out, no time"}


def test_the_flop_of_fitting_are_three_products_a_layer() -> None:
    from benchmarks._gpu_steps import fit_flop

    assert fit_flop(10) == 2.0 * 10 * (2 * 2 * 32 + 3 * 32 * 32 + 3 * 32)
    assert ws.siren(2, 32, 32, 1) == fit.SPEC
