"""The data multiplier: right on curves that are known, an interval that holds it, bounds at the ends of the curve."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from _helpers import write_small_zoo

import weightspace as ws
from weightspace.bench import Entry, Suite, run_suite
from weightspace.bench._multiplier import Multiplier, data_multiplier, multipliers
from weightspace.bench._record import Result, Row, read_result
from weightspace.report import format_table

AMOUNTS = (0.01, 0.03, 0.1, 0.3, 1.0)


def rate(amount: float, times: float = 1.0) -> float:
    """A curve without augmentation, or with one that is worth so many times the data."""
    return 0.5 + 0.1 * float(np.log10(times * amount))


def drawn(rng: np.random.Generator, p: float, seeds: int = 3) -> dict[int, np.ndarray]:
    return {seed: (rng.random(2000) < p).astype(float) for seed in range(seeds)}


def test_an_interval_holds_the_true_multiplier_about_19_times_of_20() -> None:
    rng, inside = np.random.default_rng(0), 0
    for _ in range(60):
        curve = {amount: drawn(rng, rate(amount)) for amount in AMOUNTS}
        found = data_multiplier(curve, 0.1, drawn(rng, rate(0.1, times=2.5)))
        inside += found.low <= 2.5 <= found.high
        assert found.low <= found.times <= found.high
    assert inside >= 54


def test_ends_of_the_curve_are_bounds() -> None:
    exact = {amount: {0: np.full(100, rate(amount))} for amount in AMOUNTS}
    beyond = data_multiplier(exact, 0.3, {0: np.full(100, 0.9)})
    assert beyond.times == beyond.low == beyond.most == pytest.approx(1 / 0.3)
    worse = data_multiplier(exact, 0.1, {0: np.zeros(100)})
    assert worse.times == worse.high == worse.least == pytest.approx(0.1)
    assert data_multiplier(exact, 0.1, {0: np.full(100, rate(0.1, times=3))}).times == pytest.approx(3)
    with pytest.raises(ValueError, match=r"curve: expected at least two amounts of data, got \[0.1\]"):
        data_multiplier({0.1: exact[0.1]}, 0.1, exact[0.1])


def test_a_curve_that_falls_by_chance_is_made_to_rise() -> None:
    curve = {amount: {0: np.full(10, p)} for amount, p in zip(AMOUNTS, (0.1, 0.4, 0.3, 0.4, 0.6), strict=True)}
    assert data_multiplier(curve, 0.01, {0: np.full(10, 0.4)}).times == pytest.approx(3)  # the smallest that suffices
    assert data_multiplier(curve, 0.01, {0: np.full(10, 0.5)}).times > 3


def test_entries_that_differ_in_nothing_else_make_a_curve() -> None:
    a, b = Entry("mlp", {"hidden": 4}, {"share": 0.1}), Entry("mlp", {"hidden": 4}, {"share": 1.0})
    other, views = Entry("mlp", {"hidden": 8}, {"share": 0.5}), Entry("mlp", {"hidden": 4}, {"views": 2})
    scores = {0: np.zeros(10)}
    entries = {"a": a, "b": b, "other": other, "views": views}
    rows = {(name, row): scores for name in entries for row in ("none", "noise")}
    assert set(multipliers(entries, rows)) == {("a", "noise"), ("b", "noise")}
    assert multipliers({"a": a, "b": b}, {("a", "noise"): scores, ("b", "none"): scores}) == {}


def test_a_suite_of_shares_says_what_its_rows_are_worth(tmp_path: Path) -> None:
    zoo = write_small_zoo(tmp_path / "zoo", ws.siren(2, 4, 1), train=80)
    entries = {f"share-{share}": Entry("mlp", {"hidden": 4}, {"share": share}) for share in (0.2, 1.0)}
    suite = Suite("shares", entries, ("none", "noise"), ws.TrainConfig(epochs=2, batch_size=16, epoch_steps=5))
    result = read_result(run_suite(suite, zoo.path, tmp_path / "out", workers=1))
    for row in result.rows:
        assert (row.data_multiplier is None) == (row.augmentation == "none")
    worth = {row.model: row.data_multiplier for row in result.rows if row.data_multiplier}
    assert {name: (own.least, own.most) for name, own in worth.items()} == {
        "share-0.2": (1.0, 5.0),
        "share-1.0": (0.2, 1.0),
    }
    text = format_table(result)
    assert "| seeds | times the data |" in text
    assert "≥" in text or "≤" in text
    plain = [dataclasses.replace(row, data_multiplier=None) for row in result.rows]
    assert "times the data" not in format_table(Result(rows=tuple(plain)))
    assert "| 1 | 2 [1, ≥ 5] |" in format_table(
        Result(
            rows=(
                Row(model="m", augmentation="none", test_mean=0.5, seeds=(0,)),
                Row(
                    model="m",
                    augmentation="x",
                    test_mean=0.5,
                    seeds=(0,),
                    data_multiplier=Multiplier(2, 1, 5, 0.2, 5),
                ),
            )
        )
    )
