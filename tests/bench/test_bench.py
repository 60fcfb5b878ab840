"""Suites: every cell counted once, kept, resumed; leaders by validation; a record that says where it was measured."""

from __future__ import annotations

import json
import os
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import weightspace as ws
from weightspace.bench import SUITES, Entry, Suite, environment, run_suite
from weightspace.bench import _environment as environment_module
from weightspace.training import TrainConfig
from weightspace.transforms import AUGMENTATIONS
from weightspace.zoo import Zoo, write_zoo

SPEC = ws.siren(2, 4, 1)
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

NUMBER, WHOLE, TEXT, MAYBE = (int, float), int, str, (int, float, type(None))
LINE = {"epoch": WHOLE, "loss": NUMBER, "lr": NUMBER, "train": NUMBER, "val": NUMBER, "seconds": NUMBER}
ROW = {
    "model": TEXT,
    "augmentation": TEXT,
    "transform": TEXT,
    "options": {},
    "train_options": {},
    "parameters": WHOLE,
    "seeds": [WHOLE],
    "test_mean": MAYBE,
    "test_std": MAYBE,
    "val_mean": NUMBER,
    "train_last": NUMBER,
    "under_trained": bool,
    "seconds_mean": NUMBER,
    "runs": [
        {"seed": WHOLE, "test": MAYBE, "val": NUMBER, "best_epoch": WHOLE, "seconds": NUMBER, "history": [LINE]},
    ],
}
SCHEMA = {
    "schema": WHOLE,
    "kind": TEXT,
    "suite": TEXT,
    "created": TEXT,
    "commit": (str, type(None)),
    "hardware": {"processor": TEXT, "cores": WHOLE, "threads": WHOLE, "gpu": (str, type(None))},
    "versions": {"weightspace": TEXT, "python": TEXT, "torch": TEXT, "numpy": TEXT, "scipy": TEXT},
    "workers": WHOLE,
    "zoo": {"spec": TEXT, "init_regime": TEXT, "recipe": {}, "provenance": {}, "splits": {}, "views": WHOLE},
    "train": {"epochs": WHOLE, "batch_size": WHOLE, "lr": NUMBER},
    "left_out": [TEXT],
    "rows": [ROW],
}


def check(value: Any, schema: Any, place: str = "result") -> None:
    """A dictionary asks for its keys, a list for its entries' shape, anything else is a type."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), place
        for name, own in schema.items():
            assert name in value, f"{place}.{name} is missing"
            check(value[name], own, f"{place}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), place
        for number, entry in enumerate(value):
            check(entry, schema[0], f"{place}[{number}]")
    else:
        assert isinstance(value, schema), f"{place}: {value!r}"


def small_zoo(path: Path, *, test: bool = True, labelled: bool = True, seed: int = 0) -> Zoo:
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> tuple:
        labels = torch.arange(count) % 3
        flat = (labels[:, None] - 1.0) + torch.randn(count, SPEC.num_params, generator=generator)
        return ws.Weights(flat, SPEC), labels if labelled else None, None, None, None

    splits = {"train": split(96), **({"test": split(30)} if test else {})}
    return write_zoo(path, splits, provenance={"data": "synthetic"})


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return small_zoo(tmp_path_factory.mktemp("bench") / "zoo")


@pytest.fixture(scope="module")
def finished(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int, int]]]:
    """The folder of a grid that has run, and what ``on_cell`` was told."""
    out, told = tmp_path_factory.mktemp("grid"), list[tuple[str, int, int]]()
    run_suite(TINY, zoo.path, out, workers=2, on_cell=lambda cell, _, done, total: told.append((cell.key, done, total)))
    return out, told


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


# --- a grid that has run


def test_result_follows_the_schema(finished: tuple) -> None:
    result = json.loads((finished[0] / "result.json").read_text())
    check(result, SCHEMA)
    assert (result["suite"], result["kind"], result["schema"]) == ("tiny", "bench", 1)
    assert all(len(run["history"]) == 2 for row in result["rows"] for run in row["runs"])
    with pytest.raises(AssertionError, match=r"result.rows\[0\].test_mean is missing"):  # the check can fail
        check({**result, "rows": [{k: v for k, v in result["rows"][0].items() if k != "test_mean"}]}, SCHEMA)


def test_every_cell_ran_once_and_was_told(finished: tuple) -> None:
    out, told = finished
    first = {f"{model}-{name}-0" for model in TINY.entries for name in ("none", "noise")}
    assert {key for key, _, _ in told[:4]} == first
    assert [done for _, done, _ in told] == [1, 2, 3, 4, 5]
    assert {total for _, _, total in told} == {5}
    assert told[4][0].endswith("-1")
    assert {path.name for path in (out / "cells").iterdir()} == {key for key, _, _ in told}


def test_rows_hold_mean_and_spread_of_their_runs(finished: tuple) -> None:
    rows = json.loads((finished[0] / "result.json").read_text())["rows"]
    assert sorted((row["model"], row["augmentation"]) for row in rows) == sorted(
        (model, name) for model in TINY.entries for name in ("none", "noise")
    )
    assert sorted(len(row["seeds"]) for row in rows) == [1, 1, 1, 2]
    for row in rows:
        tests = [run["test"] for run in row["runs"]]
        assert row["seeds"] == [run["seed"] for run in row["runs"]]
        assert row["test_mean"] == pytest.approx(sum(tests) / len(tests))
        assert row["val_mean"] == pytest.approx(statistics.mean(run["val"] for run in row["runs"]))
        if len(tests) == 2:
            assert row["test_std"] == pytest.approx(abs(tests[0] - tests[1]) / 2**0.5)
        else:
            assert row["test_std"] is None


def test_cells_get_their_budget_and_model(finished: tuple) -> None:
    own = json.loads((finished[0] / "cells" / "dwsnet-noise-0" / "result.json").read_text())
    assert own["model"] == "DWSNet"
    assert own["transform"] == repr(AUGMENTATIONS["noise"])
    assert own["config"] == {**own["config"], "epochs": 2, "batch_size": 16, "lr": 1e-2, "seed": 0}
    assert json.loads((finished[0] / "cells" / "mlp-none-0" / "result.json").read_text())["config"]["lr"] == 2e-3


def test_augmentations_that_do_not_fit_are_left_out_and_named(finished: tuple) -> None:
    result = json.loads((finished[0] / "result.json").read_text())
    assert result["left_out"] == ["positive-scale"]
    assert "positive-scale" not in {row["augmentation"] for row in result["rows"]}


def test_result_tells_of_no_machine_path(finished: tuple, zoo: Zoo) -> None:
    text = (finished[0] / "result.json").read_text()
    for path in (zoo.path, finished[0], Path.home(), Path(ws.__file__).parent):
        assert str(path) not in text
    assert '"/' not in text


def test_run_again_a_finished_grid_trains_nothing(finished: tuple, zoo: Zoo) -> None:
    before = files(finished[0] / "cells")
    told: list[str] = []
    run_suite(TINY, zoo.path, finished[0], workers=1, on_cell=lambda cell, *_: told.append(cell.key))
    assert len(told) == 5
    assert files(finished[0] / "cells") == before


def test_only_the_missing_cell_is_run_again(finished: tuple, zoo: Zoo, tmp_path: Path) -> None:
    out = tmp_path / "grid"
    shutil.copytree(finished[0], out)
    before, rows = files(out / "cells"), json.loads((out / "result.json").read_text())["rows"]
    shutil.rmtree(out / "cells" / "mlp-noise-0")
    run_suite(TINY, zoo.path, out, workers=1)
    after = files(out / "cells")
    assert {name: own for name, own in before.items() if not name.startswith("mlp-noise-0")} == {
        name: own for name, own in after.items() if not name.startswith("mlp-noise-0")
    }
    assert after["mlp-noise-0/cell.json"] != before["mlp-noise-0/cell.json"]
    again = json.loads((out / "result.json").read_text())["rows"]
    assert [(row["model"], row["test_mean"], row["val_mean"]) for row in again] == [
        (row["model"], row["test_mean"], row["val_mean"]) for row in rows
    ]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"train": TrainConfig(epochs=3, batch_size=16)}, "another budget: expected .*'epochs': 3.*got .*'epochs': 2"),
        ({"name": "other"}, "another suite: expected other, got tiny"),
        ({"entries": {"mlp": Entry("mlp", {"hidden": 9, "layers": 1})}}, "another model: .*'hidden': 9.*'hidden': 8"),
    ],
)
def test_folder_of_another_grid_is_refused(finished: tuple, zoo: Zoo, change: dict, text: str) -> None:
    before = files(finished[0])
    with pytest.raises(ValueError, match=f"holds results of {text}.*; use another folder or remove it"):
        run_suite(replace(TINY, **change), zoo.path, finished[0], workers=1)
    assert files(finished[0]) == before


def test_folder_of_another_zoo_is_refused(finished: tuple, tmp_path: Path) -> None:
    other = small_zoo(tmp_path / "zoo", seed=1)
    with pytest.raises(ValueError, match="holds results of another zoo"):
        run_suite(TINY, other.path, finished[0], workers=1)


# --- grids whose cells are there already: what is made of them


def plant(out: Path, cells: dict[tuple[str, str, int], tuple[float, float | None]]) -> None:
    """Write cells as if they had run, with these validation and test scores."""
    for (model, name, seed), (val, test) in cells.items():
        line = {"epoch": 1, "loss": 1.0, "lr": 0.1, "train": 0.5, "val": val, "seconds": 2.0}
        where = {"commit": "0" * 12, "device": "cpu"}
        cell = {
            "environment": where,
            "parameters": 7,
            "transform": "None",
            "best_epoch": 1,
            "val": val,
            "test": test,
            "seconds": 2.0,
        }
        folder = out / "cells" / f"{model}-{name}-{seed}"
        folder.mkdir(parents=True)
        (folder / "cell.json").write_text(json.dumps({**cell, "history": [line]}))


def test_leaders_are_chosen_by_validation_not_by_test(zoo: Zoo, tmp_path: Path) -> None:
    suite = replace(TINY, leader_seeds=(1, 2))
    first = {("mlp", "none"): (0.6, 0.9), ("mlp", "noise"): (0.8, 0.1), ("dwsnet", "none"): (0.7, 0.95)}
    plant(tmp_path, {(*row, 0): scores for row, scores in first.items()})
    plant(tmp_path, {("dwsnet", "noise", 0): (0.2, 0.99)})
    plant(tmp_path, {("mlp", "noise", seed): (0.8, 0.1 * seed) for seed in (1, 2)})
    plant(tmp_path, {("mlp", "none", seed): (0.6, 0.9) for seed in (1, 2)})  # what the leader is compared with
    rows = json.loads(run_suite(suite, zoo.path, tmp_path, workers=1).read_text())["rows"]
    assert {(row["model"], row["augmentation"]): row["seeds"] for row in rows} == {
        ("mlp", "none"): [0, 1, 2],
        ("mlp", "noise"): [0, 1, 2],
        ("dwsnet", "none"): [0],
        ("dwsnet", "noise"): [0],
    }
    led = next(row for row in rows if (row["model"], row["augmentation"]) == ("mlp", "noise"))
    assert led["test_mean"] == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    assert led["test_std"] == pytest.approx(statistics.stdev([0.1, 0.1, 0.2]))


def test_rows_are_sorted_by_test_within_a_model(zoo: Zoo, tmp_path: Path) -> None:
    suite = replace(TINY, leaders=0)
    plant(tmp_path, {(m, a, 0): (0.5, t) for m, a, t in (("mlp", "none", 0.3), ("mlp", "noise", 0.4))})
    plant(tmp_path, {(m, a, 0): (0.5, t) for m, a, t in (("dwsnet", "none", 0.6), ("dwsnet", "noise", 0.5))})
    rows = json.loads(run_suite(suite, zoo.path, tmp_path, workers=1).read_text())["rows"]
    assert [(row["model"], row["test_mean"]) for row in rows] == [
        ("dwsnet", 0.6),
        ("dwsnet", 0.5),
        ("mlp", 0.4),
        ("mlp", 0.3),
    ]
    assert [row["under_trained"] for row in rows] == [True] * 4  # train 0.5, no higher than val 0.5


def test_zoo_without_a_test_split(tmp_path: Path) -> None:
    data = small_zoo(tmp_path / "zoo", test=False)
    plant(tmp_path / "out", {(m, a, 0): (0.5, None) for m in TINY.entries for a in ("none", "noise")})
    result = json.loads(run_suite(replace(TINY, leaders=0), data.path, tmp_path / "out", workers=1).read_text())
    check(result, SCHEMA)
    assert {row["test_mean"] for row in result["rows"]} == {None}


def test_interrupted_grid_ends_its_processes_and_goes_on(zoo: Zoo, tmp_path: Path) -> None:
    import multiprocessing

    suite = replace(TINY, entries={"mlp": TINY.entries["mlp"]}, leaders=0, train=TrainConfig(epochs=2, batch_size=16))

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    others = set(multiprocessing.active_children())
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, zoo.path, tmp_path, workers=1, on_cell=interrupt)
    assert not (tmp_path / "result.json").exists()
    assert not set(multiprocessing.active_children()) - others
    kept = files(tmp_path / "cells" / "mlp-none-0")
    assert "cell.json" in kept
    plant(tmp_path, {("mlp", "noise", 0): (0.5, 0.5)}) if not (tmp_path / "cells" / "mlp-noise-0").exists() else None
    run_suite(suite, zoo.path, tmp_path, workers=1)
    assert files(tmp_path / "cells" / "mlp-none-0") == kept


# --- bad input


def test_no_such_zoo_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a zoo, a folder with a manifest"):
        run_suite(TINY, tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unlabelled_zoo_is_refused_before_any_work(tmp_path: Path) -> None:
    data = small_zoo(tmp_path / "zoo", labelled=False)
    with pytest.raises(ValueError, match="expected a zoo with labels, got 126 of 126"):
        run_suite(TINY, data.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_augmentation_is_refused_before_any_work(zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown augmentation 'noize'"):
        run_suite(replace(TINY, augmentations=("noize",)), zoo.path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown model: expected one of \['dwsnet', .*'mlp'.*got 'gpt'"):
        Entry("gpt")


# --- suites and environment


@pytest.mark.parametrize("name", SUITES)
def test_suites_name_what_exists(name: str) -> None:
    suite = SUITES[name]
    assert suite.name == name
    assert suite.augmentations[0] == "none"
    assert set(suite.augmentations) <= {"none", *AUGMENTATIONS}
    for entry in suite.entries.values():
        assert ws.models.build(entry.model, SPEC, 10, **entry.options)
        assert replace(suite.train, **entry.train)


def test_the_demo_compares_four_augmentations_with_none() -> None:
    assert len(set(SUITES["demo"].augmentations) - {"none"}) >= 4


def test_the_big_suite_holds_the_whole_taxonomy_and_three_seeds_for_five_rows() -> None:
    suite = SUITES["fashion-mnist"]
    assert set(suite.augmentations) == {"none", *AUGMENTATIONS}
    assert (suite.leaders, len(suite.seeds) + len(suite.leader_seeds)) == (5, 3)
    assert set(suite.entries) == {"dwsnet", "mlp"}


def test_environment_names_hardware_versions_and_commit() -> None:
    found = environment(threads=3)
    check(found, {name: SCHEMA[name] for name in ("created", "commit", "hardware", "versions")})
    assert found["hardware"]["threads"] == 3
    assert found["hardware"]["cores"] == os.cpu_count()
    assert found["versions"]["torch"] == torch.__version__


def test_commit_of_another_project_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed below somebody's checkout, the package must not report their commit."""
    import subprocess

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
