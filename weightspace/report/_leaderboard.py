"""Rank the models of a result, each track by itself, by validation accuracy; the test split has no say in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from weightspace.bench._record import Result, Row
from weightspace.report._load import load_result
from weightspace.report._tables import DASH, ModelTable, accuracy, cell, model_tables

ENOUGH = 3  # the page ranks models if there are at least so many
CEILING = "render-cnn"
TRACKS = {
    "weights-only": "reads the weights, and evaluates a network at no input",
    "probing": "reads activations of the networks at learned inputs as well as their weights",
    "function": "reads outputs of the networks alone",
}
HEAD = (
    "model",
    "validation, %",
    "test without augmentation, %",
    "best augmentation",
    "test with it, %",
    "parameters",
    "FLOP a network",
    "seconds an epoch",
    "equivariance",
)


@dataclass(frozen=True)
class Standing:
    """A model of a board, with its row without augmentation and the augmented row that validates best."""

    table: ModelTable
    plain: Row | None
    augmented: Row | None
    tried: int

    @property
    def chosen(self) -> Row | None:
        """The row of the two that validates better; the one without augmentation if they are level."""
        known = [row for row in (self.plain, self.augmented) if row is not None and row.val_mean is not None]
        return max(known, key=lambda row: row.val_mean or 0.0, default=None)

    @property
    def val(self) -> float | None:
        """Validation accuracy of the chosen row."""
        return self.chosen.val_mean if self.chosen else None

    @property
    def augmentation(self) -> str:
        """Name of the augmentation, and among how many it was chosen."""
        if self.augmented is None:
            return DASH
        return self.augmented.augmentation + (f" (of {self.tried})" if self.tried > 1 else "")

    @property
    def seconds_epoch(self) -> float | None:
        """Seconds of an epoch without augmentation, or with it if that is the only row."""
        row = self.plain or self.augmented
        return row.seconds_epoch if row else None


@dataclass(frozen=True)
class Board:
    """The models of one track, best first."""

    track: str | None
    standings: tuple[Standing, ...]

    @property
    def title(self) -> str:
        """Name of the track."""
        return self.track or "track not recorded"

    @property
    def note(self) -> str:
        """A sentence on what models of this track read, and on the ceiling among them."""
        reads = TRACKS.get(self.track or "")
        said = f"A model of this track {reads}." if reads else "The result does not say what these models read."
        if any(standing.table.model == CEILING for standing in self.standings):
            said += f" `{CEILING}`, a CNN on the rendered signals, is the ceiling."
        return said


def leaderboards(result: Result) -> list[Board]:
    """Return a board for every track of a result; models whose track is not recorded come last."""
    groups: dict[str | None, list[Standing]] = {}
    for table in model_tables(result):
        groups.setdefault(table.track, []).append(_standing(table))
    order = [*TRACKS, *(track for track in groups if track is not None and track not in TRACKS), None]
    return [Board(track, tuple(_ranked(groups[track]))) for track in order if track in groups]


def _standing(table: ModelTable) -> Standing:
    augmented = [row for row in table.rows if not row.baseline]
    known = [row for row in augmented if row.val_mean is not None]
    # Ties are broken by the name, because the test accuracy must have no say.
    best = min(known, key=lambda row: (-(row.val_mean or 0.0), row.augmentation), default=None)
    return Standing(table, table.baseline, best, len(augmented))


def _ranked(standings: Sequence[Standing]) -> list[Standing]:
    return sorted(standings, key=lambda one: (one.val is None, -(one.val or 0.0), one.table.model))


def rules(boards: Sequence[Board]) -> str:
    """Explain how to read the boards: which choices were made by which split."""
    apart = " Tracks read different things of a network: never compare across their tables." if len(boards) > 1 else ""
    return (
        "Best first by validation accuracy, that of the better of a model's two rows, in bold. The augmentation is the "
        "one that validates best of those tried with the model; the test split had no say in either choice. ± is the "
        f"standard deviation over seeds, where there are several.{apart} FLOP are those of a forward pass, matrix "
        "products and convolutions alone; seconds an epoch are without augmentation, where that was run."
    )


def leaderboard_markdown(result: Result | str | Path) -> str:
    """Rank the models of a result in Markdown, with a table for every track.

    A line holds a model's test accuracy without augmentation and with the augmentation that validates best, and the
    model's cost. The order follows the validation accuracy of the better of the two.

    Args:
        result: what ``run_suite`` returned: the path of ``result.json`` or of its folder; or the result that it holds.

    Returns:
        Markdown: a table for each track, and below them the rules of the ranking.

    Raises:
        ValueError: for a file that cannot be read, or rows of objectives other than classification.

    Example:
        >>> from weightspace.bench._record import Result, Row
        >>> row = Row(model="mlp", augmentation="none", test_mean=0.5, val_mean=0.48, track="weights-only")
        >>> print(leaderboard_markdown(Result(rows=(row,))).splitlines()[0])
        **weights-only.** A model of this track reads the weights, and evaluates a network at no input.
    """
    boards = leaderboards(load_result(result))
    return "\n\n".join([*map(_markdown_board, boards), rules(boards)])


def _markdown_board(board: Board) -> str:
    lines = [
        f"**{cell(board.title)}.** {board.note}",
        "",
        f"| {' | '.join(HEAD)} |",
        "|:--|--:|--:|:--|--:|--:|--:|--:|:--|",
        *(_markdown_line(standing) for standing in board.standings),
    ]
    return "\n".join(lines)


def _markdown_line(standing: Standing) -> str:
    table = standing.table
    cells = (
        cell(table.model),
        accuracy(standing.val),
        _markdown_test(standing.plain, standing.chosen),
        cell(standing.augmentation),
        _markdown_test(standing.augmented, standing.chosen),
        DASH if table.parameters is None else f"{table.parameters:,}",
        amount(table.forward_flop),
        brief(standing.seconds_epoch),
        cell(table.equivariance or DASH),
    )
    return f"| {' | '.join(cells)} |"


def _markdown_test(row: Row | None, chosen: Row | None) -> str:
    if row is None or row.test_mean is None:
        return DASH
    text = accuracy(row.test_mean, row.test_std)
    return f"**{text}**" if row is chosen else text


def amount(value: float | None) -> str:
    """Write a large count with three digits and a metric prefix.

    Example:
        >>> amount(523_264), amount(5_870_592), amount(999_999), amount(2.5e9), amount(640), amount(None)
        ('523 k', '5.87 M', '1.00 M', '2.50 G', '640', '–')
    """
    if value is None:
        return DASH
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * scale:
            share = value / scale
            return f"{share:.{2 if share < 9.995 else 1 if share < 99.95 else 0}f} {prefix}"
    return f"{value:.0f}"


def brief(value: float | None) -> str:
    """Write the seconds of an epoch, which may be few.

    Example:
        >>> brief(123.4), brief(12.34), brief(0.0456), brief(None)
        ('123', '12.3', '0.046', '–')
    """
    if value is None:
        return DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
