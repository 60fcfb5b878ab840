"""Benchmarks: zoos that are made again bit for bit, views of training signals alone, cards that say what they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import weightspace as ws
from weightspace.bench import Entry, Suite, run_suite
from weightspace.bench import _benchmarks as module
from weightspace.bench._benchmarks import BENCHMARKS, benchmark, content_hash

COUNTS = {"train": 10, "test": 4}


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = {name: replace(own, config=replace(own.config, steps=3), widths=(4, 4)) for name, own in BENCHMARKS.items()}
    monkeypatch.setattr(module, "BENCHMARKS", quick)


def test_the_same_command_makes_the_same_networks(tmp_path: Path) -> None:
    zoos = [benchmark("digits", tmp_path / name, counts=COUNTS, views=2) for name in "ab"]
    assert content_hash(zoos[0]) == content_hash(zoos[1])
    assert zoos[0]["train"].weights.flat.equal(zoos[1]["train"].weights.flat)
    other = benchmark("digits", tmp_path / "c", counts=COUNTS)
    assert content_hash(other) != content_hash(zoos[0])
    # one view first and a second one later, and a call that has nothing left to do: the same again
    for views in (2, 2):
        other = benchmark("digits", tmp_path / "c", counts=COUNTS, views=views)
        assert content_hash(other) == content_hash(zoos[0])
    with pytest.raises(ValueError, match="expected at least the 2 that"):
        benchmark("digits", tmp_path / "c", counts=COUNTS, views=1)


def test_a_zoo_of_another_benchmark_is_refused_with_views_and_without(tmp_path: Path) -> None:
    """The same data in other numbers: its card would carry the wrong name."""
    for views in (1, 2):
        zoo = benchmark("digits", tmp_path / str(views), counts=COUNTS, views=views)
        before = {file.name: file.read_bytes() for file in zoo.path.glob("*.*")}
        with pytest.raises(ValueError, match="expected"):
            benchmark("digits", zoo.path, counts={"train": 9, "test": 4}, views=views)
        assert {file.name: file.read_bytes() for file in zoo.path.glob("*.*")} == before


def test_networks_that_are_not_those_of_the_card_are_not_measured(tmp_path: Path) -> None:
    zoo = benchmark("digits", tmp_path / "zoo", counts=COUNTS)
    suite = Suite("one", {"mlp": Entry("mlp", {"hidden": 4})}, ("none",), ws.TrainConfig(epochs=1, batch_size=4))
    run_suite(suite, zoo.path, tmp_path / "out", workers=1)
    other = benchmark("digits", tmp_path / "other", counts={"train": 11, "test": 4})
    shutil.copy(other.path / "CARD.md", zoo.path)
    with pytest.raises(ValueError, match=r"CARD.md: expected the networks whose hash it tells, .* make the zoo again"):
        run_suite(suite, zoo.path, tmp_path / "out", workers=1)
    (zoo.path / "CARD.md").write_text("# mine\n")
    run_suite(suite, zoo.path, tmp_path / "out", workers=1)


def test_views_go_to_the_splits_that_have_some(tmp_path: Path) -> None:
    benchmark("digits", tmp_path, counts=COUNTS, views=2)
    data = ws.datasets.load("digits")
    for splits in (None, ["test"], ["train", "test"]):
        with pytest.raises(ValueError, match=r"splits: expected \['train'\], which have the earlier views"):
            ws.fitting.add_views(tmp_path, data, 3, splits=splits)
    zoo = ws.fitting.add_views(tmp_path, data, 3, splits=["train"])
    assert (zoo.count("train"), zoo.count("test")) == (30, 4)


def test_only_training_signals_get_views(tmp_path: Path) -> None:
    zoo = benchmark("digits", tmp_path, counts=COUNTS, views=3)
    assert (zoo.count("train"), zoo.count("test")) == (30, 4)
    assert set(zoo.views("train").tolist()) == {0, 1, 2}
    assert set(zoo.views("test").tolist()) == {0}
    first = zoo["train"].weights.flat[zoo.views("train") == 0]
    assert first.equal(benchmark("digits", tmp_path / "one", counts=COUNTS)["train"].weights.flat)
    assert ws.zoo.verify(zoo) == []


def test_the_card_says_what_the_zoo_is_made_of(tmp_path: Path) -> None:
    zoo = benchmark("digits", tmp_path, counts=COUNTS)
    text = (tmp_path / "CARD.md").read_text()
    entry = ws.datasets.DATASETS["digits"]
    for fact in (entry.licence, entry.citation, entry.split, content_hash(zoo), str(zoo.spec), '"steps": 3'):
        assert fact in text
    assert "A trial" in text
    assert "Who wrote a digit is not known" in text
    bars = text.split("```")[1].strip().splitlines()
    assert sum(int(line.split()[-1]) for line in bars) == zoo.count("train")


@pytest.mark.parametrize(("found", "shown"), [(True, "True"), (None, "None")])
def test_a_data_set_prepared_with_other_options_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: Any, shown: str
) -> None:
    monkeypatch.setenv("WEIGHTSPACE_CACHE", str(tmp_path))
    options = {"per_family": 4, "points": 2048, **({} if found is None else {"signed": found})}
    (tmp_path / "kicad.json").write_text(json.dumps({"options": options}))
    with pytest.raises(ValueError, match=f"signed=False, got {shown}; run: .* kicad .*--no-signed"):
        module._check_prepared("parts3d", BENCHMARKS["parts3d"])


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_name_what_exists(name: str) -> None:
    chosen = BENCHMARKS[name]
    entry = ws.datasets.DATASETS[chosen.data]
    assert entry.configured(**chosen.prepared) is not None or not chosen.prepared


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown benchmark: expected one of .'digits', .*, got 'dgits'"):
        benchmark("dgits", tmp_path)


def test_views_of_a_split_that_is_not_there_are_refused(tmp_path: Path) -> None:
    benchmark("digits", tmp_path, counts=COUNTS)
    data = ws.datasets.load("digits")
    for splits in (["val"], "train", []):
        with pytest.raises(ValueError, match=r"splits: expected some of \['train', 'test'\], got"):
            ws.fitting.add_views(tmp_path, data, 2, splits=splits)
