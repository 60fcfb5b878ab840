"""What every benchmark shares: repeats, spread, and a JSON record with hardware, versions and commit."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weightspace.bench import environment

RESULTS = Path(__file__).parent / "results"


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest, largest and number of repeats."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "repeats": len(values)}


def save(name: str, record: dict[str, Any], *, threads: int | None = None) -> None:
    """Print a record and keep it under ``benchmarks/results``."""
    record = {**environment(threads=threads), **record}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
