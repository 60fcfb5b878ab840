"""The table of models: the cost of a cell, augmentations of one model, leaders of every track."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import weightspace as ws
from weightspace.bench import SUITES, Entry, Suite, run_suite
from weightspace.bench._cell import Cell, CellResult
from weightspace.bench._collect import collect
from weightspace.bench._json import read_as
from weightspace.bench._record import read_result
from weightspace.report import leaderboard_markdown
from weightspace.training import TrainConfig
from weightspace.zoo import Zoo

SPEC = ws.siren(2, 4, 1)
THREE_TRACKS = Suite(
    "three-tracks",
    {
        "mlp": Entry("mlp", {"hidden": 8, "layers": 1}, augmentations=("permute+noise", "positive-scale")),
        "probe-net": Entry("probe-net", {"hidden": 8, "points": 8, "rank": 2}),
        "render-cnn": Entry("render-cnn", {"hidden": 4, "layers": 1, "size": 8}, augmentations=("small-affine",)),
    },
    ("none",),
    TrainConfig(epochs=2, batch_size=16),
)
FIRST = {"mlp-none-0", "mlp-permute+noise-0", "probe-net-none-0", "render-cnn-none-0", "render-cnn-small-affine-0"}


@pytest.fixture(scope="module")
def zoo(make_zoo: Callable[..., Zoo], tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return make_zoo(tmp_path_factory.mktemp("models") / "zoo", train=48, test=15)


@pytest.fixture(scope="module")
def finished(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int, int]]]:
    """Run a grid; return its folder and the calls of ``on_cell``."""
    out, calls = tmp_path_factory.mktemp("grid"), list[tuple[str, int, int]]()
    run_suite(
        THREE_TRACKS,
        zoo.path,
        out,
        workers=2,
        on_cell=lambda cell, _, done, total: calls.append((cell.key, done, total)),
    )
    return out, calls


# --- augmentations of one model


def test_every_model_runs_with_its_own_augmentations(finished: tuple) -> None:
    out, calls = finished
    assert {key for key, _, _ in calls} == FIRST
    assert {path.name for path in (out / "cells").iterdir()} == FIRST
    assert [(done, total) for _, done, total in calls] == [(n, 5) for n in range(1, 6)]
    assert json.loads((out / "result.json").read_text())["left_out"] == ["positive-scale"]


def test_such_a_grid_trains_nothing_again(finished: tuple, zoo: Zoo, contents: Callable) -> None:
    before = contents(finished[0] / "cells")
    run_suite(THREE_TRACKS, zoo.path, finished[0], workers=1)
    assert contents(finished[0] / "cells") == before


def test_augmentations_may_be_added_to_a_model_later(zoo: Zoo, plant: Callable, tmp_path: Path) -> None:
    before = replace(THREE_TRACKS, entries={"mlp": Entry("mlp", {"hidden": 8, "layers": 1})})
    after = replace(THREE_TRACKS, entries={"mlp": replace(before.entries["mlp"], augmentations=("permute", "none"))})
    plant(tmp_path, {"mlp-none-0": (0.5, 0.5), "mlp-permute-0": (0.6, 0.5)})
    for suite, names in ((before, ["none"]), (after, ["none", "permute"])):
        rows = json.loads(run_suite(suite, zoo.path, tmp_path, workers=1).read_text())["rows"]
        assert sorted(row["augmentation"] for row in rows) == names


def test_bad_augmentations_of_a_model_are_refused(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a tuple of names, got 'permute'; add a comma"):
        Entry("mlp", augmentations="permute")  # pyright: ignore[reportArgumentType]
    suite = replace(THREE_TRACKS, entries={"mlp": Entry("mlp", augmentations=("noise+permutes",))})
    with pytest.raises(ValueError, match=r"unknown augmentation.*permutes"):
        run_suite(suite, zoo.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_model_that_cannot_be_built_is_refused_before_any_work(zoo: Zoo, tmp_path: Path) -> None:
    suite = replace(THREE_TRACKS, entries={**THREE_TRACKS.entries, "bad": Entry("mlp", {"hidden": 1})})
    with pytest.raises(ValueError, match="hidden: expected"):
        run_suite(suite, zoo.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- what is recorded


def test_rows_say_track_group_and_cost(finished: tuple) -> None:
    rows = read_result(finished[0] / "result.json").rows
    assert {row.model: (row.track, row.equivariance) for row in rows} == {
        "mlp": ("weights-only", "none"),
        "probe-net": ("probing", "full"),
        "render-cnn": ("function", "full"),
    }
    for row in rows:
        (run,) = row.runs
        first, second = (line["seconds"] for line in run.history)
        assert row.seconds_epoch == pytest.approx((first + second) / 2)
        entry = THREE_TRACKS.entries[row.model]
        model = ws.models.build(entry.model, SPEC, 3, **entry.options)
        assert row.forward_flop == ws.models.flop(model, ws.Weights(torch.ones(16, SPEC.num_params), SPEC)) > 0
    mlp = next(row for row in rows if row.model == "mlp")
    assert mlp.forward_flop == 2 * (17 * 8 + 8 * 3)


def test_a_grid_that_has_run_has_a_board_for_every_track(finished: tuple) -> None:
    text = leaderboard_markdown(finished[0])
    titles = [line.split(".**")[0] for line in text.splitlines() if line.startswith("**")]
    assert titles == ["**weights-only", "**probing", "**function"]


def test_seconds_of_an_epoch_are_medians_and_their_mean(zoo: Zoo) -> None:
    def cell(*seconds: float) -> CellResult:
        history = [{"epoch": 1, "train": 0.5, "seconds": second} for second in seconds]
        settings = {"track": "weights-only", "equivariance": "none", "objective": None, "transform": "None"}
        cost = {"parameters": 7, "forward_flop": 14, "environment": {"commit": None, "device": "cpu"}}
        scores = {"best_epoch": 1, "seconds": 2.0, "val": 0.5, "test": 0.5, "history": history}
        return read_as(CellResult, {**settings, **cost, **scores})

    done = {Cell("mlp", "none", 0): cell(1.0, 2.0, 90.0), Cell("mlp", "none", 1): cell(4.0)}
    (row,) = collect(THREE_TRACKS, {("mlp", "none"): None}, done, {}, {}, {}, zoo, 1).rows
    assert row.seconds_epoch == pytest.approx(3.0)


# --- leaders


def test_leaders_are_those_of_every_track(zoo: Zoo, plant: Callable, tmp_path: Path) -> None:
    """The function queries validate best by far: in one ranking no other track would have a leader."""
    suite = replace(THREE_TRACKS, leaders=1, leader_seeds=(1, 2))
    vals = {
        "mlp-none": 0.2,
        "mlp-permute+noise": 0.3,
        "probe-net-none": 0.5,
        "render-cnn-none": 0.9,
        "render-cnn-small-affine": 0.8,
    }
    plant(tmp_path, {f"{name}-0": (val, 0.5) for name, val in vals.items()})
    leading = (
        "mlp-none",
        "mlp-permute+noise",
        "probe-net-none",
        "render-cnn-none",
    )  # the second is compared to the first
    plant(tmp_path, {f"{name}-{seed}": (vals[name], 0.5) for name in leading for seed in (1, 2)})
    calls: list[int] = []
    path = run_suite(suite, zoo.path, tmp_path, workers=1, on_cell=lambda *line: calls.append(line[3]))
    rows = json.loads(path.read_text())["rows"]
    seeds = {f"{row['model']}-{row['augmentation']}": row["seeds"] for row in rows}
    assert seeds == {name: [0, 1, 2] if name in leading else [0] for name in vals}
    assert (calls[0], calls[-1]) == (5 + 3 * 2, 5 + 4 * 2)  # one row a track was to be expected, and a row without


# --- the suite


def test_the_suite_of_models_holds_every_track_and_permutes_models_without_symmetry() -> None:
    suite = SUITES["models"]
    spec = ws.siren(2, 8, 8, 1)
    built = {name: ws.models.build(e.model, spec, 10, **e.options) for name, e in suite.entries.items()}
    assert {model.track for model in built.values()} == {"weights-only", "probing", "function"}
    assert (suite.augmentations, suite.leaders, suite.leader_seeds) == (("none",), 2, (1, 2))
    for name, model in built.items():
        assert "small-affine" in suite.augmentations_of(name)
        assert ("permute" in suite.augmentations_of(name)) == (model.equivariance == "none"), name
