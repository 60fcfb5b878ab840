"""Tables of comma-separated values, with one row for each network."""

from __future__ import annotations

import csv
from pathlib import Path

MOST_TABLE = 1 << 28
"""The largest file in bytes."""


def read_csv(file: Path) -> list[dict[str, str]]:
    """Read a table, whose first line names the columns.

    Raises:
        ValueError: for a file that cannot be read or is too large, no rows, and rows that are not as long as the first
            line; the message names the file.
    """
    try:
        if file.stat().st_size > MOST_TABLE:
            raise ValueError(f"{file}: expected a table of at most {MOST_TABLE >> 20} MiB, got a larger one")
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: expected a table in UTF-8, got {error}") from error
    try:
        rows = list(csv.DictReader(text.splitlines(), strict=True))
    except csv.Error as error:
        raise ValueError(f"{file}: expected comma-separated values, got {error}") from error
    if not rows:
        raise ValueError(f"{file}: expected a row for every network, got none")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise ValueError(f"{file}, line {number}: expected {len(rows[0])} values as in the first line, got others")
    return rows
