"""Suites are literals: the registries change none, each has a version, and anybody can bring one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace.bench import SUITES, Entry, Suite, run_suite
from weightspace.bench import _suites as suites_module
from weightspace.bench._evaluations import UnseenViews
from weightspace.bench._record import Result, read_result
from weightspace.transforms import AUGMENTATIONS, MixUp, RandomApply, Transform

ROOT = Path(__file__).resolve().parents[2]
SPEC = ws.siren(2, 4, 1)
FROZEN = {
    ("augmentation", 1): "bcec13060aaa",
    ("demo", 1): "70ab3966cc47",
    ("fashion-mnist", 1): "4b41b60d6942",
    ("fashion-mnist-short", 1): "76be80123d49",
    ("mixup", 1): "1b55f939335a",
    ("mixup-anchored", 1): "306e9722bfdd",
    ("models", 1): "1130e2f9d038",
    ("ours", 1): "83ccb62704ae",
    ("pooling", 1): "08c9758ba701",
    ("scale", 1): "47fd6d9cc7aa",
    ("views", 1): "916ad42c6207",
}
"""A grid that changes needs another version, and another digest here."""


def digest(suite: Suite) -> str:
    """Return a short hash of all that a suite says of its grid."""

    def plain(value: Any) -> Any:
        return repr(value) if isinstance(value, Transform) or callable(value) else str(value)

    said = {
        "entries": {name: asdict(replace(entry, evaluations={})) for name, entry in suite.entries.items()},
        "rows": [(*row, suite.augmentations_of(row[0])[row[1]]) for row in suite.rows],
        "train": {name: value for name, value in asdict(suite.train).items() if value is not None},
        "seeds": (suite.seeds, suite.leaders, suite.leader_seeds),
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=plain).encode()).hexdigest()[:12]


def test_a_changed_suite_needs_another_version() -> None:
    assert {(name, suite.version): digest(suite) for name, suite in SUITES.items()} == FROZEN
    mixup = SUITES["mixup"]
    assert digest(mixup) != digest(replace(mixup, augmentations={**dict(mixup.augmentations), "noise": "noise"}))
    assert digest(mixup) != digest(replace(mixup, train=replace(mixup.train, epochs=25)))


def test_what_the_registries_gain_changes_no_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    before = {name: digest(suite) for name, suite in SUITES.items()}
    monkeypatch.setitem(AUGMENTATIONS, "brand-new", AUGMENTATIONS["noise"])
    monkeypatch.setitem(ws.models.MODELS, "brand-new", ws.models.MLP)
    again = importlib.reload(suites_module).SUITES
    assert {name: digest(suite) for name, suite in again.items()} == before
    for suite in again.values():
        assert all("brand-new" not in row for row in suite.rows)


@pytest.mark.parametrize("name", SUITES)
def test_suites_name_what_exists(name: str) -> None:
    suite = SUITES[name]
    assert suite.name == name
    for row in suite.rows:
        transform = suite.transform(*row)
        assert (transform is None) == (row[1] == "none")
    for entry in suite.entries.values():
        assert ws.models.build(entry.model, SPEC, 10, **entry.options)
        assert replace(suite.train, **entry.train)


def test_the_demo_compares_four_augmentations_with_none() -> None:
    names = {augmentation for _, augmentation in SUITES["demo"].rows}
    assert len(names - {"none"}) >= 4
    assert "none" in names


def test_the_command_of_the_readme_runs_the_rows_of_its_record() -> None:
    record = read_result(ROOT / "benchmarks/results/fashion-mnist.json")
    suite = SUITES["fashion-mnist"]
    assert {row[1] for row in suite.rows} - set(record.left_out) == {row.augmentation for row in record.rows}
    assert len({row.augmentation for row in record.rows}) == 19
    assert (suite.leaders, len(suite.seeds) + len(suite.leader_seeds)) == (5, 3)
    assert record.train.items() <= asdict(suite.train).items()


RECORDS = sorted(
    path.name
    for path in (ROOT / "benchmarks/results").glob("*.json")
    if json.loads(path.read_text()).get("suite") in SUITES
)


@pytest.mark.parametrize("name", RECORDS)
def test_a_committed_record_is_of_its_suite(name: str) -> None:
    """The rows of a record are rows of the suite of that version, with its sizes and training."""
    record = read_result(ROOT / "benchmarks/results" / name)
    assert record.suite is not None
    suite = SUITES[record.suite]
    assert record.suite_version == suite.version
    for row in record.rows:
        entry = suite.entries[row.model]
        assert (row.model, row.augmentation) in suite.rows
        assert (row.options, row.train_options) == (dict(entry.options), dict(entry.train)), row.model


def test_there_are_records_to_check() -> None:
    assert {"fashion-mnist.json", "models-short.json", "mixup-dws.json", "ours.json"} <= set(RECORDS)


# --- augmentations of a suite


def test_a_suite_may_carry_settings_of_its_own() -> None:
    own = {"none": None, "ends": MixUp("full", alpha=0.2), "both": "permute+noise"}
    suite = Suite("mine", {"mlp": Entry("mlp", augmentations=("sign",))}, own, ws.TrainConfig())
    assert suite.rows == (("mlp", "none"), ("mlp", "ends"), ("mlp", "both"), ("mlp", "sign"))
    assert repr(suite.transform("mlp", "ends")) == repr(MixUp("full", alpha=0.2))
    assert repr(suite.transform("mlp", "both")) == repr(ws.transforms.augmentation("permute+noise"))
    assert suite.transform("mlp", "none") is None


def test_settings_of_one_experiment_are_in_its_suite_and_not_in_the_registry() -> None:
    suite = SUITES["mixup"]
    assert repr(suite.transform("mlp", "mixup-full-ends")) == repr(MixUp("full", alpha=0.2))
    assert repr(suite.transform("mlp", "mixup-full-half")) == repr(RandomApply(MixUp("full"), 0.5))
    assert not {"mixup-full-ends", "mixup-full-half"} & set(AUGMENTATIONS)


def test_bad_suites_are_refused() -> None:
    entries, train = {"mlp": Entry("mlp")}, ws.TrainConfig()
    with pytest.raises(TypeError, match="expected a name, a Transform or None for 'x', got int"):
        Suite("mine", entries, {"x": 3}, train)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="expected a tuple of names, got 'noise'; add a comma"):
        Suite("mine", entries, "noise", train)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="suite 'mine': expected at least one model, got none"):
        Suite("mine", {}, ("none",), train)
    with pytest.raises(ValueError, match=r"expected a name of letters, digits.*got '\.\./mlp'"):
        Suite("mine", {"../mlp": Entry("mlp")}, ("none",), train)
    with pytest.raises(ValueError, match="expected rows of different names, got 'a-b-c' twice; rename an entry"):
        Suite("mine", {"a": Entry("mlp"), "a-b": Entry("mlp")}, {"b-c": None, "c": None}, train)
    with pytest.raises(ValueError, match="version: expected at least 1, got 0"):
        Suite("mine", entries, ("none",), train, version=0)


# --- suites, models and augmentations from elsewhere

MODULE = """
import torch
import weightspace as ws
from dataclasses import dataclass
from weightspace.bench import Entry, Suite

class Small(ws.models.MLP):
    def __init__(self, spec, out_features, *, seed=0):
        super().__init__(spec, out_features, hidden=4, layers=1, seed=seed)

    @property
    def config(self):
        return {}

def factory(spec, out_features, *, seed=0, width=4):
    return ws.models.MLP(spec, out_features, hidden=width, layers=1, seed=seed)

def norm(model, zoo, device):
    return {"norm": float(sum(p.detach().square().sum() for p in model.parameters()))}

MINE = Suite(
    "mine",
    {"small": Entry("my_suites:Small"), "made": Entry("my_suites:factory", {"width": 3}, evaluations={"norm": norm})},
    {"none": None, "mine": "my_suites:Noise", "set": ws.transforms.GaussianNoise(0.5)},
    ws.TrainConfig(epochs=1, batch_size=8),
    version=3,
)

class Noise(ws.transforms.GaussianNoise):
    pass

NUMBER = 3
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> ws.Zoo:
    labels = torch.arange(24) % 2
    w = ws.Weights(torch.randn(24, SPEC.num_params, generator=torch.Generator().manual_seed(0)), SPEC)
    networks = ws.Networks(w, label=labels)
    return ws.zoo.write_zoo(tmp_path_factory.mktemp("suites") / "zoo", {"train": networks, "test": networks[:6]})


def test_a_suite_of_ones_own_is_named_by_its_import_path(
    zoo: ws.Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_suites.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)  # where import paths are looked for last
    result = read_result(run_suite("my_suites:MINE", zoo.path, tmp_path / "out", workers=2))
    assert (result.suite, result.suite_version) == ("mine", 3)
    assert sorted((row.model, row.augmentation) for row in result.rows) == [
        (model, name) for model in ("made", "small") for name in ("mine", "none", "set")
    ]
    made = next(row for row in result.rows if row.model == "made")
    assert made.parameters == ws.models.MLP(SPEC, 2, hidden=3, layers=1).num_parameters
    assert made.evaluations["norm"]["norm_mean"] == pytest.approx(made.runs[0].evaluations["norm"]["norm"])
    with pytest.raises(ValueError, match=r"suites: my_suites:NUMBER: expected a weightspace\.bench\.Suite, got int"):
        run_suite("my_suites:NUMBER", zoo.path, tmp_path / "other")
    with pytest.raises(ValueError, match="expected a module that can be imported, got 'nowhere'"):
        run_suite("nowhere:MINE", zoo.path, tmp_path / "other")
    with pytest.raises(
        ValueError, match=r"unknown suite: expected one of .*'demo'.*, got 'demos'; did you mean 'demo'"
    ):
        run_suite("demos", zoo.path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_entries_and_epochs_may_be_chosen(zoo: ws.Zoo, tmp_path: Path) -> None:
    suite = replace(SUITES["fashion-mnist-short"], seeds=(0,))
    suite = replace(suite, entries={"mlp": Entry("mlp", {"hidden": 4}), **suite.entries})
    result = read_result(run_suite(suite, zoo.path, tmp_path / "out", only=["mlp"], epochs=1, workers=1))
    assert [row.model for row in result.rows] == ["mlp"]
    assert result.train["epochs"] == 1
    with pytest.raises(ValueError, match=r"only: expected entries among \['mlp', 'dwsnet'\], got 'gpt'"):
        run_suite(suite, zoo.path, tmp_path / "other", only=["gpt"])


# --- recipes: seeds, evaluations and ensembles of one entry


@pytest.fixture(scope="module")
def recipe(zoo: ws.Zoo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Suite, Path, Result]:
    """Run a suite like "ours" on small models."""
    whole = SUITES["ours"].entries["forward-messages"]
    entry = replace(whole, options={"hidden": 4, "layers": 1, "channels": 4, "functions": 4}, train={"epochs": 2})
    suite = replace(SUITES["ours"], entries={"forward-messages": entry})
    out = tmp_path_factory.mktemp("recipe")
    return suite, out, read_result(run_suite(suite, zoo.path, out, workers=2))


def test_an_entry_may_have_its_own_seeds_and_epochs(recipe: tuple) -> None:
    (row,) = recipe[2].rows
    assert row.seeds == (0, 1, 2)
    assert row.augmentation == "flip+small-affine+label-smoothing"
    assert [len(run.history) for run in row.runs] == [2, 2, 2]


def test_a_suite_runs_seed_by_seed(zoo: ws.Zoo, tmp_path: Path) -> None:
    train = ws.TrainConfig(epochs=1, batch_size=8)
    entries = {"mlp": Entry("mlp", {"hidden": 4}, seeds=(7,))}
    suite = Suite("short", entries, ("none", "noise"), train, seeds=(0, 1), leaders=1, leader_seeds=(2,))
    out = tmp_path / "out"
    for seeds, ran in (((1,), (1,)), ((1, 3), (1, 3))):
        result = read_result(run_suite(suite, zoo.path, out, seeds=seeds, workers=1))
        assert {row.seeds for row in result.rows} == {ran}
    whole = read_result(run_suite(suite, zoo.path, out, workers=1))  # what is there already counts
    assert all({0, 1, 7} <= {*row.seeds} <= {0, 1, 2, 7} for row in whole.rows)
    for wrong in ((), "01", (-1,), (True,)):
        with pytest.raises((ValueError, TypeError), match="seeds: expected"):
            run_suite(suite, zoo.path, out, seeds=wrong, workers=1)


def test_views_that_a_zoo_does_not_have_are_refused_before_anything_runs(zoo: ws.Zoo, tmp_path: Path) -> None:
    entries = {name: Entry("mlp", {"hidden": 4}, train) for name, train in (("one", {}), ("three", {"views": 3}))}
    suite = Suite("views-there", entries, ("none",), ws.TrainConfig(epochs=1, batch_size=8))
    with pytest.raises(ValueError, match="views: expected at most the 1 of the split 'train', got 3"):
        run_suite(suite, zoo.path, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


def test_views_that_were_not_trained_on_are_scored_apart() -> None:
    """A model that knows a network's label by its view alone is right on the views that it is asked about."""
    source, view = torch.arange(40).repeat_interleave(3), torch.arange(3).repeat(40)
    w = ws.testing.random_weights(SPEC, 120, generator=torch.Generator().manual_seed(0)).to(torch.float32)
    w.flat[:, 0] = view.float()
    label = torch.where(view == 2, 1, source % 2)
    networks = ws.Networks(w, label, source, view)
    with tempfile.TemporaryDirectory() as folder:
        zoo = ws.zoo.write_zoo(folder, train=networks, classes=("even", "odd"))

        class ByView(ws.models.MLP):
            def forward(self, w: ws.Weights) -> torch.Tensor:
                odd = (w.flat[:, 0] == 2).float()  # right on view 2, and on half of the others
                return torch.stack([1 - odd, odd], 1)

        model = ByView(SPEC, 2, hidden=4, seed=0)
        rows = {views: UnseenViews(views)(model, zoo, "cpu") for views in (0, 2, 3)}
    assert rows == {0: {"unseen_views": pytest.approx(2 / 3)}, 2: {"unseen_views": 1.0}, 3: {}}


def test_damaged_scores_of_an_ensemble_are_refused_by_name(recipe: tuple, zoo: ws.Zoo, tmp_path: Path) -> None:
    suite, done, result = recipe
    shutil.copytree(done, tmp_path / "out")
    (path,) = (tmp_path / "out" / "ensembles").iterdir()
    good = json.loads(path.read_text())
    assert read_result(run_suite(suite, zoo.path, tmp_path / "out", workers=1)).rows == result.rows
    for wrong in ([], {"seeds": [0, 1, 2]}, {**good, "seeds": 3}, {**good, "evaluations": {"mirrored": "x"}}):
        path.write_text(json.dumps(wrong))
        with pytest.raises(
            ValueError, match=rf"{re.escape(path.name)}: .*expected .*remove it and give the command again"
        ):
            run_suite(suite, zoo.path, tmp_path / "out", workers=1)


def test_finished_cells_keep_models_that_read_as_recorded(recipe: tuple, zoo: ws.Zoo) -> None:
    """The kept model of each seed, read over mirrored copies, gives the accuracy in the record."""
    _, out, result = recipe
    (row,) = result.rows
    test = zoo["test"]
    outputs = []
    for run in row.runs:
        model = ws.models.load_model(out / "cells" / f"forward-messages-{row.augmentation}-{run.seed}")
        both = ws.models.Averaged(model.eval(), [ws.transforms.Flip(1.0, axes=(1,))]).eval()
        accuracy = (both(test.weights).argmax(1) == test.label).double().mean().item()
        assert run.evaluations["mirrored"]["test"] == pytest.approx(accuracy)
        outputs.append(model(test.weights).detach())
    assert row.ensemble is not None
    together = (torch.stack(outputs).mean(0).argmax(1) == test.label).double().mean().item()
    assert row.ensemble.test == pytest.approx(together)
    assert row.ensemble.seeds == (0, 1, 2)
    assert row.ensemble.parameters == 3 * (row.parameters or 0)
    assert row.evaluations["mirrored"]["test_mean"] == pytest.approx(
        sum(run.evaluations["mirrored"]["test"] for run in row.runs) / 3
    )


def test_ten_copies_are_the_mirror_image_and_both_moved() -> None:
    spec = ws.siren(2, 8, 8, 1)
    w = ws.testing.random_weights(spec, 1, generator=torch.Generator().manual_seed(0))
    copies = suites_module.copies(0.5)
    found = [ws.evaluate(copy(w, generator=torch.Generator()), torch.tensor([[0.2, 0.3]])) for copy in copies]
    points = [(0.2, -0.3), (0.7, 0.3), (-0.3, 0.3), (0.2, 0.8), (0.2, -0.2)]
    points += [(0.7, -0.3), (-0.3, -0.3), (0.2, 0.2), (0.2, -0.8)]
    wanted = ws.evaluate(w, torch.tensor(points))[0]
    assert torch.allclose(torch.stack(found)[:, 0, 0], wanted, atol=1e-5)
