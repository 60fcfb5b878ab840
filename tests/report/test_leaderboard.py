"""The leaderboard: tracks apart, rows chosen and ranked by validation, old results still shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from weightspace.bench._record import Result
from weightspace.report import format_table, leaderboard_markdown
from weightspace.report._leaderboard import HEAD, leaderboards
from weightspace.report._page import page


def make_row(model: str, augmentation: str, val: float | None, test: float | None, **extra: Any) -> dict[str, Any]:
    """A synthetic row, a fixture of the layout and no measurement."""
    about = {"track": "weights-only", "equivariance": "permutation", "parameters": 31402, "forward_flop": 5_870_592}
    scores = {"val_mean": val, "test_mean": test, "seconds_epoch": 12.34, "seeds": [0]}
    return {"model": model, "augmentation": augmentation, **about, **scores, **extra}


def make_result(*rows: dict[str, Any]) -> Result:
    return Result.from_json({"schema": 2, "kind": "bench", "suite": "synthetic-fixture", "rows": list(rows)})


def lines(text: str) -> dict[str, list[str]]:
    """The cells of every model's line in Markdown."""
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in rows if row[0] != "model" and not row[0].startswith(":")}


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    query = {"track": "function", "equivariance": "full"}
    return [
        make_row("dwsnet", "none", 0.60, 0.61, seeds=[0, 1], test_std=0.004),
        make_row("dwsnet", "small-affine", 0.66, 0.64, seeds=[0, 1], test_std=0.012),
        make_row("render-cnn", "none", 0.90, 0.89, **query),
        make_row("mlp", "small-affine", 0.20, 0.90),
        make_row("mlp", "permute", 0.25, 0.22),
        make_row("mlp", "none", 0.30, 0.31),
        make_row("probe-gen", "none", 0.85, 0.84, **query),
        make_row("probe-net", "none", 0.80, 0.81, track="probing", equivariance="full"),
    ]


@pytest.fixture
def result(rows: list[dict[str, Any]]) -> Result:
    return make_result(*rows)


def test_tracks_are_apart_and_in_order(result: Result) -> None:
    boards = leaderboards(result)
    assert [(board.track, [one.table.model for one in board.standings]) for board in boards] == [
        ("weights-only", ["dwsnet", "mlp"]),
        ("probing", ["probe-net"]),
        ("function", ["render-cnn", "probe-gen"]),
    ]
    blocks = leaderboard_markdown(result).split("\n\n**")
    assert [list(lines(block)) for block in blocks] == [["dwsnet", "mlp"], ["probe-net"], ["render-cnn", "probe-gen"]]
    assert ["ceiling" in block for block in blocks] == [False, False, True]
    assert "never compare across their tables" in blocks[-1]


def test_a_line_tells_accuracy_cost_and_group(result: Result) -> None:
    found = lines(leaderboard_markdown(result))
    costs = ["31,402", "5.87 M", "12.3"]
    assert found["dwsnet"] == ["66.0", "61.0 ± 0.4", "small-affine", "**64.0 ± 1.2**", *costs, "permutation"]
    assert found["mlp"] == ["30.0", "**31.0**", "permute (of 2)", "22.0", *costs, "permutation"]
    assert found["probe-net"] == ["80.0", "**81.0**", "–", "–", *costs, "full"]
    assert {len(cells) + 1 for cells in found.values()} == {len(HEAD)}


def test_augmentation_and_order_are_chosen_by_validation_not_by_test() -> None:
    rows = [
        make_row("a", "none", 0.50, 0.99),
        make_row("a", "lucky", 0.40, 1.00),
        make_row("a", "modest", 0.45, 0.10),
        make_row("b", "none", 0.30, 0.20),
        make_row("b", "modest", 0.60, 0.05),
    ]
    for given in (rows, rows[::-1]):
        (board,) = leaderboards(make_result(*given))
        assert [one.table.model for one in board.standings] == ["b", "a"]
        chosen = [(one.augmented.augmentation, one.val) for one in board.standings if one.augmented]
        assert chosen == [("modest", 0.60), ("modest", 0.50)]


def test_ties_of_validation_are_not_broken_by_test() -> None:
    rows = [
        make_row("b", "none", 0.5, 0.9),
        make_row("a", "none", 0.5, 0.1),
        make_row("a", "x", 0.5, 0.9),
        make_row("a", "w", 0.5, 0.2),
    ]
    (board,) = leaderboards(make_result(*rows))
    first = board.standings[0]
    assert [one.table.model for one in board.standings] == ["a", "b"]
    assert first.augmented is not None
    assert first.augmented.augmentation == "w"
    assert first.chosen is first.plain


def test_results_without_tracks_are_still_reported(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for name in ("track", "equivariance", "forward_flop", "seconds_epoch"):
            del row[name]
    result = make_result(*rows)
    (board,) = leaderboards(result)
    assert board.track is None
    assert len(board.standings) == 5
    text = leaderboard_markdown(result)
    assert text.startswith("**track not recorded.**")
    assert "never compare across" not in text
    assert lines(text)["dwsnet"][-3:] == ["–", "–", "–"]
    assert "track not recorded" in page([result], None)


def test_what_is_missing_is_a_dash() -> None:
    row = make_row("a", "none", None, None, forward_flop=None, seconds_epoch=None, parameters=None)
    other = make_row("b", "small-affine", 0.1, None, track=None, equivariance=None)
    text = leaderboard_markdown(make_result(row, other))
    assert lines(text)["a"] == ["–"] * 7 + ["permutation"]
    assert lines(text)["b"] == ["10.0", "–", "small-affine", "–", "31,402", "5.87 M", "12.3", "–"]
    assert "nan" not in text


def test_page_ranks_three_models_and_no_fewer(result: Result) -> None:
    text = page([result], None)
    head = "each track for itself"
    assert text.count(head) == 1
    assert text.count('class="methods board"') == 3
    assert "<td>66.0</td><td>61.0 ± 0.4</td><td>small-affine</td><td><b>64.0 ± 1.2</b></td>" in text
    assert "<td>30.0</td><td><b>31.0</b></td><td>permute (of 2)</td><td>22.0</td>" in text
    assert text.index("render-cnn, a CNN") > text.index("<b>function</b>") > text.index("<b>probing</b>")
    assert "the test split had no say in either choice" in text
    two = replace(result, rows=tuple(row for row in result.rows if row.model in ("mlp", "probe-net")))
    assert head not in page([two], None)


def test_names_are_escaped() -> None:
    hostile = "<script>a|b</script>"
    rows = [make_row(f"{hostile}{n}", hostile, 0.5, 0.5, track=hostile, equivariance=hostile) for n in range(3)]
    text = page([make_result(*rows)], None)
    assert text.count("<script") == 1  # the page's own
    assert text.count("&lt;script&gt;a|b") >= 10
    markdown = leaderboard_markdown(make_result(*rows))
    assert "a|b" not in markdown
    assert "a\\|b" in markdown


def test_scores_of_other_objectives_are_no_accuracies() -> None:
    result = make_result(make_row("a", "none", -0.5, -0.5, objective="Editing(x)"))
    for reader in (format_table, leaderboard_markdown, lambda result: page([result], None)):
        with pytest.raises(ValueError, match=r"expected rows of classification, got 'a' trained for Editing\(x\)"):
            reader(result)
