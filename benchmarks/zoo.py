"""Opening a zoo of a million networks, and reading random batches of it from the page cache.

The networks are synthetic (numbers drawn once, and a number of its own in each network): how long reading takes does
not depend on what is read. Shards are those that ``fit_zoo`` writes.

    python -m benchmarks.zoo [--networks 1000000] [--folder FOLDER] [--repeats 5]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import weightspace as ws
from benchmarks._common import save, spread, timed
from weightspace.fitting._fit_zoo import SHARD
from weightspace.zoo import ZooWriter

SPEC = ws.siren(2, 32, 32, 1)
SPARE = 2


def build(path: Path, networks: int, shard_size: int) -> None:
    """Write a zoo of one split."""
    plan = [("train", min(shard_size, networks - start), start) for start in range(0, networks, shard_size)]
    block = torch.randn(shard_size, SPEC.num_params, generator=torch.Generator().manual_seed(0))
    with ZooWriter.create(path, SPEC, plan=plan, recipe={"synthetic": True}) as writer:
        for number, (_, count, start) in enumerate(plan):
            sources = torch.arange(start, start + count)
            flat = block[:count].clone()
            flat[:, 0] = sources % 2**20  # exact in float32
            columns = {"sources": sources, "labels": sources % 10, "psnr": torch.full((count,), 30.0)}
            writer.write(number, ws.Weights(flat, SPEC), **columns, commit=False)
        writer.commit()


def opened(path: Path) -> float:
    """Seconds to open it in a fresh process, after the imports."""
    code = "import sys, time, weightspace as ws; t = time.perf_counter(); ws.Zoo.open(sys.argv[1]); "
    code += "print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def epoch(zoo: ws.Zoo, batch_size: int, seed: int) -> float:
    """Networks a second over one shuffled epoch, the drawing of the order included."""
    start, count = time.perf_counter(), 0
    for weights, labels in zoo.batches("train", batch_size, generator=torch.Generator().manual_seed(seed)):
        count += len(weights)
        if count == batch_size:  # a batch is right: each network still has its own number
            assert torch.equal(weights.flat[:, 0].long() % 10, labels % 10) or zoo.count("train") > 2**20
    assert count == zoo.count("train")
    return count / (time.perf_counter() - start)


def measure(folder: Path, networks: int, shard_size: int, repeats: int) -> dict[str, Any]:
    path = folder / f"zoo-{networks}-{shard_size}"
    built = None if (path / "manifest.json").exists() else timed(lambda: build(path, networks, shard_size))
    record: dict[str, Any] = {
        "networks": networks,
        "bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        "shard_size": shard_size,
        "build_seconds": built,
        "open_seconds": spread([opened(path) for _ in range(repeats)]),
    }
    zoo = ws.Zoo.open(path)
    record["first_read_with_hashes_seconds"] = timed(lambda: zoo.labels("train"))
    epoch(zoo, 256, 0)  # maps the pages
    record["networks_per_second"] = {
        str(size): spread([epoch(zoo, size, seed) for seed in range(1, repeats + 1)]) for size in (64, 256, 1024)
    }
    return record


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", type=int, help="a million, or 200,000 where the disk is small")
    parser.add_argument("--shard-size", type=int, default=SHARD)
    parser.add_argument("--folder", type=Path, help="where to keep the zoo for another run; nowhere if not given")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with contextlib.nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
        room = shutil.disk_usage(folder).free // (SPARE * 4 * SPEC.num_params)
        networks = args.networks or (1_000_000 if room > 1_000_000 else 200_000)
        record = measure(Path(folder), networks, args.shard_size, args.repeats)
    save("zoo", {"benchmark": "zoo", "what": "opening, and random batches from the page cache", **record})


if __name__ == "__main__":
    main()
