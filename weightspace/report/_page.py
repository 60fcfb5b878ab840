"""Write the page: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from weightspace._extras import optional
from weightspace._files import write_atomic
from weightspace._version import __version__
from weightspace.bench._record import Result
from weightspace.report._facts import facts, plain
from weightspace.report._leaderboard import ENOUGH, HEAD, amount, brief, leaderboards, rules
from weightspace.report._load import load_result
from weightspace.report._pictures import Gallery, gallery
from weightspace.report._plots import amount_curves, difference_bars, validation_curves
from weightspace.report._tables import (
    ModelTable,
    Verdict,
    accuracy,
    leaders,
    model_tables,
    paired_points,
    points,
    seconds,
    times,
)
from weightspace.zoo import Zoo

ALIGNMENTS = {
    "none": "midpoint, not aligned",
    "permutation": "midpoint, permutations aligned",
    "signed": "midpoint, permutations and signs aligned",
    "full": "midpoint, whole group aligned",
}


def write_report(results: Sequence[str | Path], out: str | Path, *, zoo: str | Path | None = None) -> Path:
    """Turn result files into one self-contained HTML page, for light and dark screens.

    Its tables sort by a click; nothing is fetched from anywhere.

    The page is drawn by matplotlib and Jinja2, which ``pip install weightspace[report]`` installs.

    Args:
        results: ``result.json`` files of ``weightspace bench``, or the folders that hold them; each becomes a section.
        out: the page, or a folder to put ``report.html`` into.
        zoo: a zoo whose networks are drawn before and after each augmentation, and halfway between pairs.

    Returns:
        The path of the page.

    Raises:
        ImportError: if matplotlib or Jinja2 is not installed.
        TypeError: for one path instead of a sequence.
        ValueError: for no results, one of another kind or schema, or a folder that is not a zoo.
        OSError: if the page cannot be written; an older one stays.

    Example:
        >>> import json, tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> row = {"model": "mlp", "augmentation": "none", "seeds": [0], "test_mean": 0.5}
        >>> size = (folder / "result.json").write_text(json.dumps({"schema": 2, "kind": "bench", "rows": [row]}))
        >>> write_report([folder / "result.json"], folder / "page.html").name
        'page.html'
    """
    if isinstance(results, str | Path):
        raise TypeError(f"results: expected a sequence of paths, got one path {str(results)!r}; put it in a list")
    if not results:
        raise ValueError("results: expected at least one result.json, got none")
    loaded = [load_result(path) for path in results]
    pictures = None if zoo is None else gallery(Zoo.open(zoo))
    out = Path(out)
    out = out / "report.html" if out.is_dir() else out
    write_atomic(out, page(loaded, pictures, no_pictures=zoo is not None and pictures is None).encode("utf-8"))
    return out


def page(results: Sequence[Result], pictures: Gallery | None, *, no_pictures: bool = False) -> str:
    """Return the page of loaded results as text."""
    jinja = optional("jinja2", "Jinja2", "report", "a report")
    env = jinja.Environment(
        loader=jinja.PackageLoader("weightspace.report", ""),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "accuracy": accuracy,
        "points": points,
        "paired": paired_points,
        "seconds": seconds,
        "times": times,
        "plain": plain,
        "names": _names,
        "small": _small,
        "big": amount,
        "brief": brief,
    }
    return env.get_template("page.html").render(
        sections=[_section(result, f"s{index}") for index, result in enumerate(results)],
        pictures=pictures,
        no_pictures=no_pictures,
        alignments=ALIGNMENTS,
        board_head=HEAD,
        version=__version__,
    )


def _section(result: Result, ident: str) -> dict[str, Any]:
    tables = model_tables(result)
    known = facts(result, tables)
    boards = leaderboards(result) if len(tables) >= ENOUGH else []
    return {
        "title": result.suite or "result",
        "facts": known,
        "boards": boards,
        "rules": rules(boards),
        "amounts": amount_curves(result, f"{ident}a"),
        "models": [_model(table, f"{ident}m{number}") for number, table in enumerate(tables)],
    }


def _model(table: ModelTable, ident: str) -> dict[str, Any]:
    bars, curves = difference_bars(table, f"{ident}b"), validation_curves(table, f"{ident}c")
    return {
        "table": table,
        "verdict": table.verdict,
        "headline": headline(table.verdict),
        "sentence": sentence(table),
        "colours": {row.augmentation: f"c{number}" for number, row in enumerate(leaders(table), 1)},
        "bars": bars,
        "curves": curves,
        "under_trained": any(row.under_trained for row in table.rows),
    }


def headline(verdict: Verdict) -> str:
    """Write the verdict in a few characters."""
    return "not measured" if verdict.gain is None else f"{points(verdict.gain)} points"


def sentence(table: ModelTable) -> str:
    """Write the verdict as a sentence that claims no more than the spread allows."""
    verdict = table.verdict
    if verdict.best is None or verdict.gain is None:
        return "No row without augmentation and an augmented row were both tested: there is nothing to compare."
    source = {
        "paired": "half of its 95 % interval, paired by test network and seed",
        "seeds": "the spread of a difference over seeds",
        "test split": "the sampling error of the test split",
    }
    amount = "unknown" if verdict.spread is None else f"{100 * verdict.spread:.1f} points"
    scale = f"{source[verdict.source]}, {amount}" if verdict.source else "a spread that is not known"
    several = verdict.source == "seeds" or len(verdict.best.seeds) > 1
    once = "" if several else " One seed each: more seeds would tell more."
    if verdict.kind == "helped":
        return f"Augmentation helped: the gain is above {scale}.{once}"
    if verdict.kind == "unclear":
        return f"No clear gain: the difference is within {scale}.{once}"
    if all((table.difference(row) or 0.0) <= 0 for row in table.rows):
        return (
            f"No augmentation helped: no row tests better than the one without augmentation. For scale: {scale}.{once}"
        )
    return f"No gain: the augmentation that validates best tests no better than none. For scale: {scale}.{once}"


def _names(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'}"


def _small(value: float) -> str:
    return f"{value:.3g}"
