"""Read the results that reports are made of."""

from __future__ import annotations

from pathlib import Path

from weightspace.bench._record import Result, read_result


def load_result(path: Result | str | Path) -> Result:
    """Read a ``result.json`` of ``weightspace bench``.

    Results of weightspace 0.1.0 (schema 1) are read too. The validation curves come from ``history.jsonl.gz`` if it
    is in the same folder.

    Args:
        path: the file, or the folder that holds a ``result.json``. A result is returned as it is.

    Returns:
        The result: a frozen dataclass with the fields of the file; ``rows`` are dataclasses too.

    Raises:
        ValueError: if there is no file, or if it is of another kind or damaged, with the place.

    Example:
        >>> from weightspace.report._load import load_result
        >>> result = load_result("out/result.json")  # doctest: +SKIP
        >>> result.rows[0].test_mean  # doctest: +SKIP
        0.6358
    """
    if isinstance(path, Result):
        return path
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        return read_result(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected a result.json, got no file; `weightspace bench` writes one") from error
    except OSError as error:
        raise ValueError(f"{path}: expected a result.json, got a file that cannot be read: {error}") from error
