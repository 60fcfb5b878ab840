"""Describe where a figure is measured: hardware, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch

from weightspace._version import __version__

PACKAGE = Path(__file__).resolve().parents[1]


def environment(*, threads: int | None = None) -> dict[str, Any]:
    """Return the hardware, versions and commit of this run, which every result file holds.

    Args:
        threads: threads of the measurement; those of torch if None.

    Returns:
        A dictionary that JSON can hold.

    Example:
        >>> sorted(environment())
        ['commit', 'created', 'hardware', 'versions']
    """
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "hardware": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": threads or torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "weightspace": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            **{name: version(name) for name in ("numba", "jax") if find_spec(name) is not None},
        },
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the package's own checkout, marked if files have changed, or None outside a checkout."""
    here = PACKAGE

    def git(*args: str) -> str | None:
        try:
            run = subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return run.stdout.strip() if run.returncode == 0 else None

    if (
        git("ls-files", "--error-unmatch", "__init__.py") is None
    ):  # the package is installed inside another project's checkout
        return None
    commit = git("rev-parse", "--short=12", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "--", str(here)) else commit
