"""Rows against the row without augmentation: intervals that hold what they say, and where the scores come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from _helpers import write_small_zoo
from safetensors.torch import load_file, save

import weightspace as ws
from weightspace.bench import Entry, Suite, run_suite
from weightspace.bench._paired import Comparison, compare, holm
from weightspace.bench._record import Result, Row, read_result
from weightspace.report import format_table
from weightspace.report._tables import model_tables


def test_an_interval_holds_the_true_difference_about_19_times_of_20() -> None:
    rng, inside, false = np.random.default_rng(0), 0, 0
    for _ in range(400):
        hard = rng.random(300)
        rows = [
            {seed: (0.7 * hard + 0.3 * rng.random(300) < rate).astype(float) for seed in (0, 1, 2)}
            for rate in (0.5, 0.5, 0.55)
        ]
        truth = float(np.mean([_mean(0.55) - _mean(0.5)]))
        found = compare({"same": rows[1], "better": rows[2]}, rows[0])
        inside += found["better"].low <= truth <= found["better"].high
        false += found["same"].p < 0.05
    assert inside >= 0.93 * 400
    assert false <= 0.07 * 400


def _mean(rate: float) -> float:
    """The chance that 0.7 u + 0.3 v < rate for uniform u, v."""
    u = (np.arange(20000) + 0.5) / 20000
    return float(np.clip((rate - 0.7 * u) / 0.3, 0, 1).mean())


def test_seeds_that_differ_widen_the_interval() -> None:
    base = {seed: np.zeros(1000) for seed in range(3)}
    steady = {seed: np.r_[np.ones(50), np.zeros(950)] for seed in range(3)}
    apart = {seed: np.r_[np.ones(50 * seed), np.zeros(1000 - 50 * seed)] for seed in range(3)}
    found = compare({"steady": steady, "apart": apart}, base)
    assert found["steady"].difference == pytest.approx(found["apart"].difference) == pytest.approx(0.05)
    assert found["apart"].high - found["apart"].low > 2 * (found["steady"].high - found["steady"].low)


def test_only_seeds_that_both_have_are_compared() -> None:
    base = {0: np.zeros(10), 1: np.ones(10)}
    found = compare({"one": {1: np.zeros(10), 7: np.ones(10)}, "none": {8: np.ones(10)}}, base)
    assert set(found) == {"one"}
    assert (found["one"].difference, found["one"].seeds) == (-1.0, 1)


def test_holm_never_lowers_a_probability_or_its_order() -> None:
    p = dict(zip("abcde", [0.2, 0.001, 0.04, 0.04, 0.9], strict=True))
    found = holm(p)
    assert all(p[name] <= found[name] <= 1 for name in p)
    assert sorted(p, key=lambda name: p[name]) == sorted(found, key=lambda name: found[name])
    assert found["b"] == pytest.approx(0.005)


def test_a_suite_says_how_rows_differ_from_none(tmp_path: Path) -> None:
    zoo = write_small_zoo(tmp_path / "zoo", ws.siren(2, 4, 1), train=60, test=30)
    config = ws.TrainConfig(epochs=1, batch_size=20)
    suite = Suite("mine", {"mlp": Entry("mlp", {"hidden": 8})}, ("none", "noise"), config, seeds=(0, 1))
    path = run_suite(suite, zoo.path, tmp_path / "out", workers=1)
    rows = {row.augmentation: row for row in read_result(path).rows}
    scores = {
        name: [
            load_file(tmp_path / "out" / "cells" / f"mlp-{name}-{seed}" / "test.safetensors")["score"].numpy()
            for seed in (0, 1)
        ]
        for name in rows
    }
    for name, row in rows.items():
        assert [own.mean() for own in scores[name]] == pytest.approx([run.test for run in row.runs])
    assert rows["none"].against_none is None
    paired = rows["noise"].against_none
    assert paired is not None
    assert paired.difference == pytest.approx(np.mean(scores["noise"]) - np.mean(scores["none"]), abs=1e-6)
    assert "[" in format_table(path)
    # scores that an earlier version did not keep are computed from the models, the same
    before = json.loads(path.read_text())["rows"]
    for file in (tmp_path / "out").rglob("test.safetensors"):
        file.unlink()
    assert json.loads(run_suite(suite, zoo.path, tmp_path / "out", workers=1).read_text())["rows"] == before
    # damaged ones are refused with their name, and nothing is lost
    (kept,) = (tmp_path / "out").rglob("mlp-noise-1/test.safetensors")
    for data in (kept.read_bytes()[:-3], save({"score": torch.ones(7)}), save({"other": torch.ones(30)})):
        kept.write_bytes(data)
        with pytest.raises(ValueError, match=r"mlp-noise-1/test.safetensors: expected the scores of 30"):
            run_suite(suite, zoo.path, tmp_path / "out", workers=1)
    kept.unlink()
    assert json.loads(run_suite(suite, zoo.path, tmp_path / "out", workers=1).read_text())["rows"] == before


@pytest.mark.parametrize(
    ("difference", "low", "kind"), [(0.03, 0.01, "helped"), (0.03, -0.01, "unclear"), (0.0, -0.02, "not")]
)
def test_a_verdict_rests_on_the_interval(difference: float, low: float, kind: str) -> None:
    """The spread over seeds alone would call all of these a gain: the rows differ by more than it."""
    paired = Comparison(difference, low, 2 * difference - low, p=0.5, p_corrected=0.5, seeds=2)
    rows = tuple(
        Row(model="m", augmentation=name, seeds=(0, 1), test_mean=test, test_std=0.001, val_mean=test, against_none=own)
        for name, test, own in (("none", 0.5, None), ("noise", 0.6, paired))
    )
    verdict = model_tables(Result(rows=rows))[0].verdict
    assert (verdict.kind, verdict.source, verdict.gain) == (kind, "paired", difference)
