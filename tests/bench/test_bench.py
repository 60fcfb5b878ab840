"""Grids: every cell runs once, is kept and resumed; leaders are chosen by validation; the record says where."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace.bench import Entry, Suite, run_suite
from weightspace.bench import _environment as environment_module
from weightspace.bench._environment import environment
from weightspace.bench._record import HISTORY, read_result
from weightspace.training import TrainConfig
from weightspace.transforms import AUGMENTATIONS

TINY = Suite(
    "tiny",
    {
        "mlp": Entry("mlp", {"hidden": 8, "layers": 1}),
        "dwsnet": Entry("dwsnet", {"hidden": 4, "layers": 1}, {"lr": 1e-2}),
    },
    ("none", "noise", "positive-scale"),
    TrainConfig(epochs=2, batch_size=16),
    leaders=1,
    leader_seeds=(1,),
)
Contents = Callable[[Path], dict[str, tuple[int, bytes]]]
Call = tuple[str, int, int]


@pytest.fixture(scope="module")
def zoo(make_zoo: Callable[..., ws.Zoo], tmp_path_factory: pytest.TempPathFactory) -> ws.Zoo:
    return make_zoo(tmp_path_factory.mktemp("bench") / "zoo")


@pytest.fixture(scope="module")
def finished(zoo: ws.Zoo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Call]]:
    """Run a grid; return its folder and the calls of ``on_cell``."""
    out, calls = tmp_path_factory.mktemp("grid"), list[Call]()
    run_suite(TINY, zoo.path, out, workers=2, on_cell=lambda cell, _, done, all: calls.append((cell.key, done, all)))
    return out, calls


# --- a grid that has run


def test_result_says_suite_version_schema_and_machine(finished: tuple) -> None:
    result = read_result(finished[0] / "result.json")
    assert (result.suite, result.suite_version, result.kind, result.schema) == ("tiny", 1, "bench", 2)
    assert result.hardware["threads"] == 1
    assert set(result.versions) >= {"weightspace", "python", "torch", "numpy", "scipy"}
    assert (result.workers, result.devices) == (2, ("cpu",))
    assert result.train["epochs"] == 2
    assert set(result.zoo) >= {"spec", "init_regime", "recipe", "provenance", "splits", "views"}
    for row in result.rows:
        assert None not in (row.transform, row.track, row.equivariance, row.parameters, row.forward_flop)
        assert None not in (row.val_mean, row.test_mean, row.train_last, row.seconds_mean, row.under_trained)


def test_histories_lie_packed_beside_the_result(finished: tuple, tmp_path: Path) -> None:
    text = (finished[0] / "result.json").read_text()
    assert "history" not in text
    result = read_result(finished[0] / "result.json")
    assert all([line["epoch"] for line in run.history] == [1, 2] for row in result.rows for run in row.runs)
    (tmp_path / "result.json").write_text(text)
    alone = read_result(tmp_path / "result.json")  # the curves are lost without the file, and nothing else
    assert all(run.history == () for row in alone.rows for run in row.runs)
    assert alone.to_json() == result.to_json()
    (tmp_path / HISTORY).write_bytes((finished[0] / HISTORY).read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{HISTORY}: expected the histories of a grid, got another file"):
        read_result(tmp_path / "result.json")


def test_every_cell_ran_once_and_was_reported(finished: tuple) -> None:
    out, calls = finished
    first = {f"{model}-{name}-0" for model in TINY.entries for name in ("none", "noise")}
    assert {key for key, _, _ in calls[:4]} == first
    assert [done for _, done, _ in calls] == [1, 2, 3, 4, 5]
    assert {total for _, _, total in calls} == {5}
    assert calls[4][0].endswith("-1")
    assert {path.name for path in (out / "cells").iterdir()} == {key for key, _, _ in calls}


def test_rows_hold_mean_and_spread_of_their_runs(finished: tuple) -> None:
    rows = read_result(finished[0] / "result.json").rows
    assert sorted((row.model, row.augmentation) for row in rows) == sorted(
        (model, name) for model in TINY.entries for name in ("none", "noise")
    )
    assert sorted(len(row.seeds) for row in rows) == [1, 1, 1, 2]
    for row in rows:
        tests = [run.test for run in row.runs]
        assert row.seeds == tuple(run.seed for run in row.runs)
        assert row.test_mean == pytest.approx(sum(tests) / len(tests))
        assert row.val_mean == pytest.approx(statistics.mean(run.val for run in row.runs))
        if len(tests) == 2:
            assert row.test_std == pytest.approx(abs(tests[0] - tests[1]) / 2**0.5)
        else:
            assert row.test_std is None


def test_cells_get_their_budget_and_model(finished: tuple) -> None:
    own = json.loads((finished[0] / "cells" / "dwsnet-noise-0" / "result.json").read_text())
    assert own["model"] == "DWSNet"
    assert own["transform"] == repr(AUGMENTATIONS["noise"])
    assert own["config"] == {**own["config"], "epochs": 2, "batch_size": 16, "lr": 1e-2, "seed": 0}
    assert json.loads((finished[0] / "cells" / "mlp-none-0" / "result.json").read_text())["config"]["lr"] == 2e-3


def test_augmentations_that_do_not_fit_are_left_out_and_named(finished: tuple) -> None:
    result = read_result(finished[0] / "result.json")
    assert result.left_out == ("positive-scale",)
    assert "positive-scale" not in {row.augmentation for row in result.rows}


def test_result_holds_no_path_of_the_machine(finished: tuple, zoo: ws.Zoo) -> None:
    text = (finished[0] / "result.json").read_text()
    for path in (zoo.path, finished[0], Path.home(), Path(ws.__file__).parent):
        assert str(path) not in text
    assert '"/' not in text


def test_a_finished_grid_trains_nothing_again(finished: tuple, zoo: ws.Zoo, contents: Contents) -> None:
    before, calls = contents(finished[0] / "cells"), list[str]()
    run_suite(TINY, zoo.path, finished[0], workers=1, on_cell=lambda cell, *_: calls.append(cell.key))
    assert len(calls) == 5
    assert contents(finished[0] / "cells") == before


def test_only_the_missing_cell_is_run_again(finished: tuple, zoo: ws.Zoo, tmp_path: Path, contents: Contents) -> None:
    out = tmp_path / "grid"
    shutil.copytree(finished[0], out)
    before, rows = contents(out / "cells"), read_result(out / "result.json").rows
    shutil.rmtree(out / "cells" / "mlp-noise-0")
    run_suite(TINY, zoo.path, out, workers=1)
    after = contents(out / "cells")
    assert {name: own for name, own in before.items() if not name.startswith("mlp-noise-0")} == {
        name: own for name, own in after.items() if not name.startswith("mlp-noise-0")
    }
    assert after["mlp-noise-0/cell.json"] != before["mlp-noise-0/cell.json"]
    again = read_result(out / "result.json").rows
    assert [(row.model, row.test_mean, row.val_mean) for row in again] == [
        (row.model, row.test_mean, row.val_mean) for row in rows
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"train": TrainConfig(epochs=3, batch_size=16)}, "another budget: expected .*'epochs': 3.*got .*'epochs': 2"),
        ({"name": "other"}, "another suite: expected other, got tiny"),
        ({"version": 2}, "another version of the suite: expected 2, got 1"),
        ({"entries": {"mlp": Entry("mlp", {"hidden": 9, "layers": 1})}}, "another model: .*'hidden': 9.*'hidden': 8"),
        ({"augmentations": {"none": None, "noise": "dropout"}}, "another augmentation: .*Dropout.*GaussianNoise"),
    ],
)
def test_folder_of_another_grid_is_refused(
    finished: tuple, zoo: ws.Zoo, contents: Contents, change: dict, text: str
) -> None:
    before = contents(finished[0])
    with pytest.raises(ValueError, match=f"holds results of {text}.*; use another folder or remove it"):
        run_suite(replace(TINY, **change), zoo.path, finished[0], workers=1)
    assert contents(finished[0]) == before


def test_folder_of_another_zoo_is_refused(finished: tuple, make_zoo: Callable[..., ws.Zoo], tmp_path: Path) -> None:
    other = make_zoo(tmp_path / "zoo", seed=1)
    with pytest.raises(ValueError, match="holds results of another zoo"):
        run_suite(TINY, other.path, finished[0], workers=1)


# --- grids whose cells are there already


def test_leaders_are_chosen_by_validation_not_by_test(zoo: ws.Zoo, plant: Callable, tmp_path: Path) -> None:
    suite = replace(TINY, leader_seeds=(1, 2))
    plant(tmp_path, {"mlp-none-0": (0.6, 0.9), "mlp-noise-0": (0.8, 0.1), "dwsnet-none-0": (0.7, 0.95)})
    plant(tmp_path, {"dwsnet-noise-0": (0.2, 0.99)})
    plant(tmp_path, {f"mlp-noise-{seed}": (0.8, 0.1 * seed) for seed in (1, 2)})
    plant(tmp_path, {f"mlp-none-{seed}": (0.6, 0.9) for seed in (1, 2)})  # the leader is compared with this row
    rows = read_result(run_suite(suite, zoo.path, tmp_path, workers=1)).rows
    assert {(row.model, row.augmentation): row.seeds for row in rows} == {
        ("mlp", "none"): (0, 1, 2),
        ("mlp", "noise"): (0, 1, 2),
        ("dwsnet", "none"): (0,),
        ("dwsnet", "noise"): (0,),
    }
    led = next(row for row in rows if (row.model, row.augmentation) == ("mlp", "noise"))
    assert led.test_mean == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert led.test_std == pytest.approx(statistics.stdev([0.1, 0.1, 0.2]))


def test_rows_are_sorted_by_test_within_a_model(zoo: ws.Zoo, plant: Callable, tmp_path: Path) -> None:
    tests = {"mlp-none-0": 0.3, "mlp-noise-0": 0.4, "dwsnet-none-0": 0.6, "dwsnet-noise-0": 0.5}
    plant(tmp_path, {key: (0.5, test) for key, test in tests.items()})
    rows = read_result(run_suite(replace(TINY, leaders=0), zoo.path, tmp_path, workers=1)).rows
    assert [(row.model, row.test_mean) for row in rows] == [
        ("dwsnet", 0.6),
        ("dwsnet", 0.5),
        ("mlp", 0.4),
        ("mlp", 0.3),
    ]
    assert [row.under_trained for row in rows] == [True] * 4  # train 0.5, no higher than val 0.5


def test_zoo_without_a_test_split(make_zoo: Callable[..., ws.Zoo], plant: Callable, tmp_path: Path) -> None:
    data = make_zoo(tmp_path / "zoo", test=0)
    plant(tmp_path / "out", {f"{m}-{a}-0": (0.5, None) for m in TINY.entries for a in ("none", "noise")})
    result = read_result(run_suite(replace(TINY, leaders=0), data.path, tmp_path / "out", workers=1))
    assert {row.test_mean for row in result.rows} == {None}


def test_interrupted_grid_ends_its_processes_and_goes_on(
    zoo: ws.Zoo, plant: Callable, tmp_path: Path, contents: Contents
) -> None:
    suite = replace(TINY, entries={"mlp": TINY.entries["mlp"]}, leaders=0, train=TrainConfig(epochs=2, batch_size=16))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    others = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, zoo.path, tmp_path, workers=1, on_cell=interrupt)
    assert not (tmp_path / "result.json").exists()
    assert not set(multiprocessing.active_children()) - others
    kept = contents(tmp_path / "cells" / "mlp-none-0")
    assert "cell.json" in kept
    if not (tmp_path / "cells" / "mlp-noise-0").exists():
        plant(tmp_path, {"mlp-noise-0": (0.5, 0.5)})
    run_suite(suite, zoo.path, tmp_path, workers=1)
    assert contents(tmp_path / "cells" / "mlp-none-0") == kept


# --- bad input


def test_no_such_zoo_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a zoo, a folder with a manifest"):
        run_suite(TINY, tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unlabelled_zoo_is_refused_before_any_work(make_zoo: Callable[..., ws.Zoo], tmp_path: Path) -> None:
    data = make_zoo(tmp_path / "zoo", labelled=False)
    with pytest.raises(ValueError, match="expected a zoo with labels, got 126 of 126"):
        run_suite(TINY, data.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_augmentation_is_refused_before_any_work(zoo: ws.Zoo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown augmentation.*noize"):
        run_suite(replace(TINY, augmentations=("noize",)), zoo.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_model_is_refused_before_any_work(zoo: ws.Zoo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown model: expected one of \['dwsnet', .*'mlp'.*got 'gpt'"):
        run_suite(replace(TINY, entries={"gpt": Entry("gpt")}), zoo.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_entries_that_no_process_could_be_sent_are_refused_before_any_work(zoo: ws.Zoo, tmp_path: Path) -> None:
    entry = Entry("mlp", evaluations={"mine": lambda model, zoo, device: {}})
    with pytest.raises(ValueError, match="mlp-none-0: expected a transform, objective and evaluations that can be pic"):
        run_suite(replace(TINY, entries={"mlp": entry}), zoo.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- environment


def test_environment_names_hardware_versions_and_commit() -> None:
    found = environment(threads=3)
    assert set(found) == {"created", "commit", "hardware", "versions"}
    assert found["hardware"]["threads"] == 3
    assert found["hardware"]["cores"] == os.cpu_count()
    assert found["versions"]["torch"] == torch.__version__


def test_commit_of_another_project_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed below somebody's checkout, the package must not report their commit."""
    package = tmp_path / "venv" / "weightspace"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]

    def git(*arguments: str) -> None:
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "theirs")
    monkeypatch.setattr(environment_module, "PACKAGE", package)
    assert environment()["commit"] is None
    git("add", ".")
    git("commit", "--quiet", "--message", "ours")
    commit = environment()["commit"]
    assert isinstance(commit, str)
    assert len(commit) == 12
    (package / "__init__.py").write_text("changed = True\n")
    assert environment()["commit"] == f"{commit}+changes"
