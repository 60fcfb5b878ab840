"""The table of models: what a cell costs, augmentations of one model, leaders of every track, folders of before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import weightspace as ws
from weightspace.bench import SUITES, Cell, Entry, Suite, collect, flop, run_suite
from weightspace.models import MODELS
from weightspace.report import leaderboard_markdown, load_result
from weightspace.training import TrainConfig
from weightspace.zoo import Zoo, write_zoo

SPEC = ws.siren(2, 4, 1)
THREE_TRACKS = Suite(
    "three-tracks",
    {
        "mlp": Entry("mlp", {"hidden": 8, "layers": 1}, augmentations=("permute+noise", "positive-scale")),
        "hybrid": Entry("hybrid", {"hidden": 8, "points": 8, "rank": 2}),
        "functional": Entry("functional", {"hidden": 4, "layers": 1, "size": 8}, augmentations=("small-affine",)),
    },
    ("none",),
    TrainConfig(epochs=2, batch_size=16),
)
FIRST = {"mlp-none-0", "mlp-permute+noise-0", "hybrid-none-0", "functional-none-0", "functional-moves-0"}


def small_zoo(path: Path) -> Zoo:
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple:
        labels = torch.arange(count) % 3
        flat = (labels[:, None] - 1.0) + torch.randn(count, SPEC.num_params, generator=generator)
        return ws.Weights(flat, SPEC), labels, None, None, None

    return write_zoo(path, {"train": split(48), "test": split(15)})


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return small_zoo(tmp_path_factory.mktemp("models") / "zoo")


@pytest.fixture(scope="module")
def finished(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int, int]]]:
    """The folder of a grid that has run, and what ``on_cell`` was told."""
    out, told = tmp_path_factory.mktemp("grid"), list[tuple[str, int, int]]()
    run_suite(
        THREE_TRACKS,
        zoo.path,
        out,
        workers=2,
        on_cell=lambda cell, _, done, total: told.append((cell.key, done, total)),
    )
    return out, told


def planted(val: float, **more: Any) -> dict[str, Any]:
    """A finished cell as versions before the table of models wrote it."""
    line = {"epoch": 1, "loss": 1.0, "lr": 0.1, "train": 0.5, "val": val, "seconds": 2.0}
    where = {"commit": "0" * 12, "device": "cpu"}
    about = {"parameters": 7, "transform": "None", "best_epoch": 1, "seconds": 2.0, "environment": where}
    return {**about, "val": val, "test": 0.5, "history": [line], **more}


def plant(out: Path, cells: dict[str, float]) -> None:
    """Write cells as if they had run, with these validation scores."""
    for key, val in cells.items():
        folder = out / "cells" / key
        folder.mkdir(parents=True)
        (folder / "cell.json").write_text(json.dumps(planted(val)))


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


# --- augmentations of one model


def test_every_model_runs_with_its_own_augmentations(finished: tuple) -> None:
    out, told = finished
    assert {key for key, _, _ in told} == FIRST
    assert {path.name for path in (out / "cells").iterdir()} == FIRST
    assert [(done, total) for _, done, total in told] == [(n, 5) for n in range(1, 6)]
    assert json.loads((out / "result.json").read_text())["left_out"] == ["positive-scale"]


def test_run_again_such_a_grid_trains_nothing(finished: tuple, zoo: Zoo) -> None:
    before = files(finished[0] / "cells")
    run_suite(THREE_TRACKS, zoo.path, finished[0], workers=1)
    assert files(finished[0] / "cells") == before


def test_augmentations_may_be_added_to_a_model_later(zoo: Zoo, tmp_path: Path) -> None:
    before = replace(THREE_TRACKS, entries={"mlp": Entry("mlp", {"hidden": 8, "layers": 1})})
    after = replace(THREE_TRACKS, entries={"mlp": replace(before.entries["mlp"], augmentations=("permute", "none"))})
    plant(tmp_path, {"mlp-none-0": 0.5, "mlp-permute-0": 0.6})
    for suite, names in ((before, ["none"]), (after, ["none", "permute"])):
        rows = json.loads(run_suite(suite, zoo.path, tmp_path, workers=1).read_text())["rows"]
        assert sorted(row["augmentation"] for row in rows) == names


def test_folder_of_an_earlier_version_goes_on(zoo: Zoo, tmp_path: Path) -> None:
    plant(tmp_path, dict.fromkeys(FIRST, 0.5))
    run_suite(THREE_TRACKS, zoo.path, tmp_path, workers=1)
    grid = json.loads((tmp_path / "grid.json").read_text())
    assert grid["models"]["mlp"] == {"model": "mlp", "options": {"hidden": 8, "layers": 1}, "train": {}}  # as ever
    changed = {**THREE_TRACKS.entries, "mlp": Entry("mlp", {"hidden": 9, "layers": 1})}
    with pytest.raises(ValueError, match="holds results of another model"):
        run_suite(replace(THREE_TRACKS, entries=changed), zoo.path, tmp_path, workers=1)


def test_bad_augmentations_of_a_model_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a tuple of names, got 'permute'; add a comma"):
        Entry("mlp", augmentations="permute")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="unknown augmentation 'permutes'"):
        Entry("mlp", augmentations=("noise+permutes",))


def test_model_that_cannot_be_built_is_refused_before_any_work(zoo: Zoo, tmp_path: Path) -> None:
    suite = replace(THREE_TRACKS, entries={**THREE_TRACKS.entries, "bad": Entry("mlp", {"hidden": 1})})
    with pytest.raises(ValueError, match="hidden: expected"):
        run_suite(suite, zoo.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- what is recorded


def test_rows_tell_track_group_and_cost(finished: tuple) -> None:
    rows = load_result(finished[0])["rows"]
    assert {row["model"]: (row["track"], row["respects"]) for row in rows} == {
        "mlp": ("weights-only", "nothing"),
        "hybrid": ("hybrid", "full"),
        "functional": ("function", "full"),
    }
    for row in rows:
        (run,) = row["runs"]
        first, second = (line["seconds"] for line in run["history"])
        assert row["seconds_epoch"] == pytest.approx((first + second) / 2)
        entry = THREE_TRACKS.entries[row["model"]]
        model = ws.models.build(entry.model, SPEC, 3, **entry.options)
        assert row["forward_flop"] == flop(model, ws.Weights(torch.ones(16, SPEC.num_params), SPEC)) > 0
    mlp = next(row for row in rows if row["model"] == "mlp")
    assert mlp["forward_flop"] == 2 * (17 * 8 + 8 * 3)


def test_a_grid_that_has_run_has_a_board_for_every_track(finished: tuple) -> None:
    text = leaderboard_markdown(load_result(finished[0]))
    titles = [line.split(".**")[0] for line in text.splitlines() if line.startswith("**")]
    assert titles == ["**weights-only", "**hybrid", "**function"]


def test_seconds_of_an_epoch_are_medians_and_their_mean(zoo: Zoo) -> None:
    def cell(*seconds: float) -> dict[str, Any]:
        line = planted(0.5)["history"][0]
        return planted(0.5, history=[{**line, "seconds": second} for second in seconds])

    done = {Cell("mlp", "none", 0): cell(1.0, 2.0, 90.0), Cell("mlp", "none", 1): cell(4.0)}
    (row,) = collect(THREE_TRACKS, done, zoo, 1)["rows"]
    assert row["seconds_epoch"] == pytest.approx(3.0)


def test_cells_of_earlier_versions_say_nothing_of_tracks(zoo: Zoo) -> None:
    old, new = Cell("mlp", "none", 0), Cell("mlp", "none", 1)
    (row,) = collect(THREE_TRACKS, {old: planted(0.5)}, zoo, 1)["rows"]
    assert (row["track"], row["respects"], row["forward_flop"]) == (None, None, None)
    found = planted(0.5, track="weights-only", respects="nothing", forward_flop=320)
    (row,) = collect(THREE_TRACKS, {old: planted(0.5), new: found}, zoo, 1)["rows"]
    assert (row["track"], row["respects"], row["forward_flop"]) == ("weights-only", "nothing", 320)


# --- leaders


def test_leaders_are_those_of_every_track(zoo: Zoo, tmp_path: Path) -> None:
    """The function queries validate best by far: in one ranking no other track would have a leader."""
    suite = replace(THREE_TRACKS, leaders=1, leader_seeds=(1, 2))
    vals = {
        "mlp-none": 0.2,
        "mlp-permute+noise": 0.3,
        "hybrid-none": 0.5,
        "functional-none": 0.9,
        "functional-moves": 0.8,
    }
    plant(tmp_path, {f"{name}-0": val for name, val in vals.items()})
    leading = ("mlp-none", "mlp-permute+noise", "hybrid-none", "functional-none")  # the first is what the second leads
    plant(tmp_path, {f"{name}-{seed}": vals[name] for name in leading for seed in (1, 2)})
    told: list[int] = []
    path = run_suite(suite, zoo.path, tmp_path, workers=1, on_cell=lambda *line: told.append(line[3]))
    rows = json.loads(path.read_text())["rows"]
    seeds = {f"{row['model']}-{row['augmentation']}": row["seeds"] for row in rows}
    assert seeds == {name: [0, 1, 2] if name in leading else [0] for name in vals}
    assert (told[0], told[-1]) == (5 + 3 * 2, 5 + 4 * 2)  # one row a track was to be expected, and a row without


# --- FLOP


def test_flop_of_attention_is_counted() -> None:
    """Against a count by hand; the counter alone does not see the fused kernels that inference takes."""
    spec, wide = ws.siren(2, 4, 3, 1), 8
    model = ws.models.WeightTokens(spec, 5, hidden=wide, layers=2, attention_heads=2).eval()
    weights = ws.Weights(torch.zeros(6, spec.num_params), spec)
    tokens = 1 + 4 + 3 + 1
    rows = 2 * wide * (4 * 3 + 3 * 5 + 1 * 4)
    feed = model.encoder.layers[0].linear1.out_features
    layer = 2 * tokens * (4 * wide * wide + 2 * tokens * wide + 2 * wide * feed)
    expected = rows + 2 * layer + 2 * wide * 5
    assert flop(model, weights) == expected
    with torch.no_grad(), FlopCounterMode(display=False) as blind:
        model(weights)
    assert blind.get_total_flops() // 6 < expected


@pytest.mark.parametrize("training", [True, False])
def test_flop_leaves_the_model_as_it_was(training: bool) -> None:
    model = ws.models.MLP(SPEC, 3, hidden=8, dropout=0.5).train(training)
    weights = ws.Weights(torch.ones(2, SPEC.num_params), SPEC)
    state, kept = torch.random.get_rng_state(), weights.flat.clone()
    flop(model, weights)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training is training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(weights.flat, kept)
    assert not weights.flat.requires_grad


def test_flop_of_a_frozen_model_without_gradients_is_the_same() -> None:
    model = ws.models.WeightTokens(SPEC, 5, hidden=8, layers=1, attention_heads=2)
    weights = ws.Weights(torch.zeros(2, SPEC.num_params), SPEC)
    before = flop(model, weights)
    with torch.no_grad():
        assert flop(model.requires_grad_(False), weights) == before


# --- the suite


def test_the_suite_of_models_holds_every_model_and_every_track() -> None:
    suite = SUITES["models"]
    assert {entry.model for entry in suite.entries.values()} == set(MODELS)
    spec = ws.siren(2, 8, 8, 1)
    built = {name: ws.models.build(e.model, spec, 10, **e.options) for name, e in suite.entries.items()}
    assert {model.track for model in built.values()} == {"weights-only", "hybrid", "function"}
    assert (suite.augmentations, suite.leaders, suite.leader_seeds) == (("none",), 2, (1, 2))
    for name, model in built.items():
        assert "small-affine" in suite.augmentations_of(name)
        assert ("permute" in suite.augmentations_of(name)) == (model.respects == "nothing"), name
