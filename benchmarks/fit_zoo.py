"""Fit a whole zoo and record when each network was done, to see whether a long run is as fast as a short one.

    python -m benchmarks.fit_zoo --out runs/zoo-full [--data fashion-mnist] [--recipe dws] [--minutes 10]

Fits SIREN 2-32-32-1 to 55,000 images for training, 5,000 for validation and 10,000 for testing (``--counts``), on all
cores; a run that was stopped goes on. The record holds how many networks every whole minute of this run made, the rate
of the first ``--minutes`` of them, and what ten views of 60,000 images take at that rate. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

import weightspace as ws
from benchmarks._common import peak_mb, save, spread
from weightspace.fitting import RECIPES

LARGE = 10 * 60_000  # networks: ten views of sixty thousand signals


def rates(ends: list[tuple[float, int]], minutes: int) -> dict[str, Any]:
    """Turn (seconds, networks done) after each chunk into networks of each whole minute, and a projection."""
    whole = int(ends[-1][0] // 60)
    done = [max((n for at, n in ends if at <= 60 * k), default=0) for k in range(whole + 1)]
    each = [float(after - before) for before, after in pairwise(done)]
    begin = [(at, n) for at, n in ends if at <= 60 * minutes]
    seconds, networks = begin[-1] if begin else ends[-1]
    last_seconds, last = ends[-1]
    return {
        "networks_of_each_minute": each,
        "networks_a_minute": spread(each) if each else None,
        "measured": {"seconds": seconds, "networks": networks, "networks_per_second": networks / seconds},
        "ten_views_of_60000": {"networks": LARGE, "projected_hours": LARGE / networks * seconds / 3600},
        "whole_run": {"seconds": last_seconds, "networks": last, "networks_per_second": last / last_seconds},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--recipe", default="dws", choices=sorted(RECIPES))
    parser.add_argument("--counts", nargs=3, type=int, default=(55000, 5000, 10000), metavar=("TRAIN", "VAL", "TEST"))
    parser.add_argument("--minutes", type=int, default=10, help="at the beginning, that the projection is made from")
    args = parser.parse_args()
    data, config = ws.datasets.load(args.data), RECIPES[args.recipe]
    counts: dict[str, int] = dict(zip(("train", "val", "test"), args.counts, strict=True))
    ends: list[tuple[float, int]] = []
    psnr: list[torch.Tensor] = []
    begin = time.perf_counter()

    def note(_done: int, _total: int, chunk: torch.Tensor) -> None:
        psnr.append(chunk)
        ends.append((time.perf_counter() - begin, len(chunk) + (ends[-1][1] if ends else 0)))

    zoo = ws.fit_zoo(args.out, data, ws.siren(2, 32, 32, 1), config=config, counts=counts, on_progress=note)
    if not ends:
        raise SystemExit(f"{args.out} is complete: nothing is left to measure; give another folder")
    quality = torch.cat(psnr)
    save(
        "fit_zoo",
        {
            "benchmark": "fit_zoo",
            "what": f"{zoo.provenance['data']}, SIREN 2-32-32-1, recipe {args.recipe}, {sum(counts.values())} networks",
            **rates(ends, args.minutes),
            "psnr": {"mean": float(quality.mean()), "std": float(quality.std())},
            "peak_mb": peak_mb(),
        },
    )


if __name__ == "__main__":
    main()
