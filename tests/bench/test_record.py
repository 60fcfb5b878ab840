"""The schema of results: read and written in one place, old ones opened, damaged ones refused by their names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import weightspace as ws
from weightspace.bench import Entry, Suite, run_suite
from weightspace.bench._json import dumps, read_as
from weightspace.bench._record import Result, Row, Run, read_result, write_result

ONE = Suite("one", {"mlp": Entry("mlp", {"hidden": 4, "layers": 1})}, ("none",), ws.TrainConfig(epochs=1, batch_size=8))
OLD = Path(__file__).parent / "v0.1.0"  # a folder of results that weightspace 0.1.0 wrote


NAMED = {"model": "m", "augmentation": "n"}


def record(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schema": 2, "kind": "bench", "rows": list(rows) or [{"model": "mlp", "augmentation": "none"}], **more}


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    history = ({"epoch": 1, "val": 0.5, "seconds": 1.0}, {"epoch": 2, "val": 0.6, "seconds": 2.0})
    run = Run(seed=1, val=0.5, test=0.25, evaluations={"mirrored": {"val": 0.5}}, history=history)
    row = Row(model="mlp", augmentation="none", seeds=(1,), test_mean=0.25, runs=(run,), options={"hidden": 4})
    result = Result(rows=(row, replace(row, augmentation="noise")), suite="mine", suite_version=2)
    assert read_result(write_result(tmp_path, result)) == result
    first = (tmp_path / "history.jsonl.gz").read_bytes()
    write_result(tmp_path, result)
    assert (tmp_path / "history.jsonl.gz").read_bytes() == first  # no time of writing in it


def test_lines_of_json_are_short_and_rows_of_numbers_are_not_broken_up() -> None:
    data = {"numbers": list(range(60)), "row": {"mean": 0.5, "std": None}, "text": "x" * 200}
    text = dumps(data)
    assert json.loads(text) == data
    assert len(text.splitlines()) < 10
    assert '{"mean": 0.5, "std": null}' in text
    assert dumps([1, 2]) == "[1, 2]"
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps([float("nan")])


def test_a_result_of_the_first_version_opens() -> None:
    result = read_result(OLD / "result.json")
    assert (result.schema, result.suite, result.suite_version) == (2, "tiny", None)
    old = json.loads((OLD / "result.json").read_text())
    assert old["schema"] == 1
    for row, was in zip(result.rows, old["rows"], strict=True):
        assert (row.model, row.test_mean, row.val_mean) == (was["model"], was["test_mean"], was["val_mean"])
        assert (row.equivariance, was["respects"]) == ("none", "nothing")  # the same under its present name
        assert row.track == was["track"]
        for run, before in zip(row.runs, was["runs"], strict=True):
            assert [line["val"] for line in run.history] == [line["val"] for line in before["history"]]
            assert run.train_last == before["history"][-1]["train"]


def test_a_track_of_the_first_version_has_its_present_name() -> None:
    row = {"model": "m", "augmentation": "none", "track": "hybrid", "respects": "full"}
    found = Result.from_json({**record(row), "schema": 1}).rows[0]
    assert (found.track, found.equivariance) == ("probing", "full")


@pytest.fixture(scope="module")
def finished(make_zoo: Callable[..., ws.Zoo], tmp_path_factory: pytest.TempPathFactory) -> tuple[ws.Zoo, Path]:
    """Return a zoo, and the folder of a grid of one cell that has run on it."""
    folder = tmp_path_factory.mktemp("one")
    zoo = make_zoo(folder / "zoo", train=24, test=6)
    run_suite(ONE, zoo.path, folder / "out", workers=1)
    return zoo, folder / "out"


def test_a_folder_of_the_first_version_is_refused_with_its_version(
    finished: tuple[ws.Zoo, Path], tmp_path: Path
) -> None:
    zoo, _ = finished
    shutil.copytree(OLD, tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"grid\.json: expected a grid of format 2, got 1 \(1 is of weightspace 0\.1\.0"
    ):
        run_suite(ONE, zoo.path, tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "kind 'bench' .*got a list"),
        ({}, "got kind None"),
        ({"kind": "speed"}, "got kind 'speed'"),
        ({"benchmark": "memory"}, "got benchmark 'memory'"),
        (
            {**record(), "schema": 3},
            r"expected result schema 2 \(or 1, of weightspace 0\.1\.0\), got 3; report it with",
        ),
        ({**record(), "schema": None}, "expected result schema 2 .*got None"),
        ({**record(), "rows": []}, "at least one row, got none"),
        ({**record(), "rows": None}, "rows: expected a list, got None"),
        ({**record(), "rows": [3]}, r"rows\[0\]: expected an object, got 3"),
        ({**record(), "schema": 1, "rows": [3]}, "rows: expected a list of objects"),
        (record({"model": "mlp"}), r"rows\[0\]\.augmentation: expected a value, got none"),
        (record({"model": 3, "augmentation": "none"}), r"rows\[0\]\.model: expected text, got 3"),
        (
            record({"model": "m", "augmentation": "n", "test_mean": "many"}),
            "test_mean: expected a finite number, got 'm",
        ),
        (
            record({"model": "m", "augmentation": "n", "test_mean": True}),
            "test_mean: expected a finite number, got True",
        ),
        (record({**NAMED, "test_mean": 10**400}), "something else: a whole number of 401 digits"),
        (record({**NAMED, "seeds": 5}), r"rows\[0\]\.seeds: expected a list, got 5"),
        (record({**NAMED, "seeds": [0.5]}), r"seeds\[0\]: expected a whole number, got 0.5"),
        (record({**NAMED, "runs": [None]}), r"runs\[0\]: expected an object, got None"),
        (
            record({"model": "m", "augmentation": "n", "under_trained": 1}),
            "under_trained: expected true or false, got 1",
        ),
        (
            {**record({"model": "m", "augmentation": "n", "runs": [None]}), "schema": 1},
            r"runs\[0\]: expected an object",
        ),
        (record(zoo=3), "zoo: expected an object, got 3"),
    ],
)
def test_other_files_are_refused_with_the_place(tmp_path: Path, data: Any, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"result\.json: .*{message}"):
        read_result(path)


@pytest.mark.parametrize(
    "text", ["", "no JSON", '{"kind": "bench", "rows"', "[" * 100_000, '{"rows": [NaN]}', "\udcff"]
)
def test_cut_and_foreign_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"result\.json: expected a benchmark result in JSON, got something else: "):
        read_result(path)


def test_a_dataclass_is_read_with_the_types_that_it_declares() -> None:
    run = read_as(Run, {"seed": 3, "val": 1, "history": [{"val": None}], "unknown": 1})
    assert run == Run(seed=3, val=1.0, history=({"val": None},))
    with pytest.raises(ValueError, match=r"run\.history\[0\]\.val: expected a finite number, got 'x'"):
        read_as(Run, {"seed": 3, "history": [{"val": "x"}]}, "run")


def test_a_grid_of_a_budget_with_fewer_settings_goes_on(finished: tuple[ws.Zoo, Path], tmp_path: Path) -> None:
    zoo, done = finished
    shutil.copytree(done, tmp_path / "out")
    grid = json.loads((tmp_path / "out" / "grid.json").read_text())
    for name in ("share", "views", "epoch_steps"):
        del grid["budget"][name]
    (tmp_path / "out" / "grid.json").write_text(json.dumps(grid))
    assert read_result(run_suite(ONE, zoo.path, tmp_path / "out", workers=1)).rows


@pytest.mark.parametrize("kept", [0, 1, 40])
@pytest.mark.parametrize("name", ["grid.json", "cells/mlp-none-0/cell.json"])
def test_cut_files_of_a_grid_are_refused_by_name(
    finished: tuple[ws.Zoo, Path], tmp_path: Path, name: str, kept: int
) -> None:
    zoo, done = finished
    shutil.copytree(done, tmp_path / "out")
    path = tmp_path / "out" / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{name}: expected .*got something else: .*; .*(remove|another)"):
        run_suite(ONE, zoo.path, tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("grid.json", [], "expected a grid of format 2, got None"),
        ("grid.json", {"format": 2, "suite": 3}, "suite: expected text, got 3; use another folder or remove it"),
        ("cells/mlp-none-0/cell.json", [], "expected an object, got .*; remove the file's folder"),
        (
            "cells/mlp-none-0/cell.json",
            {"parameters": 3},
            "track: expected a value, got none; remove the file's folder",
        ),
    ],
)
def test_foreign_files_of_a_grid_are_refused_by_name(
    finished: tuple[ws.Zoo, Path], tmp_path: Path, name: str, data: Any, message: str
) -> None:
    zoo, done = finished
    shutil.copytree(done, tmp_path / "out")
    (tmp_path / "out" / name).write_text(json.dumps(data))
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        run_suite(ONE, zoo.path, tmp_path / "out", workers=1)
