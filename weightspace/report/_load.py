"""Read the files that the report takes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightspace.report._tables import check_result


def load_result(path: str | Path) -> dict[str, Any]:
    """Read a ``result.json`` of ``weightspace bench``.

    Args:
        path: the file, or the folder that holds a ``result.json``.

    Returns:
        What the file holds; ``kind`` is ``"bench"``.

    Raises:
        ValueError: if there is no file, or if it is another kind of file.
    """
    path = Path(path)
    path = path / "result.json" if path.is_dir() else path
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected a result.json, got no file; `weightspace bench` writes one") from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: expected a benchmark result in JSON, got something else: {error}") from error
    try:
        _check(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return data


def _check(data: Any) -> None:
    if not isinstance(data, Mapping) or data.get("kind") != "bench":
        raise ValueError(f"expected a result of kind 'bench' (`weightspace bench` writes one), got {_name(data)}")
    check_result(data)


def _name(data: Any) -> str:
    if not isinstance(data, Mapping):
        return f"a {type(data).__name__}"
    return f"benchmark {data['benchmark']!r}" if "benchmark" in data else f"kind {data.get('kind')!r}"
