"""Zoos of a million networks: opening one, reading random batches from the page cache, and peak memory.

    python -m benchmarks.zoo [--networks 1000000] [--folder FOLDER] [--repeats 5]

The networks are synthetic: numbers drawn once, and another number in each network. How long reading takes does not
depend on what is read. Shards are those that ``fit_zoo`` writes.

    python -m benchmarks.zoo --memory [--images 60000] [--steps 2]

measures the peak memory of fitting that many images and of training on them, each in its own process (``memory.json``).
Memory does not depend on the number of Adam steps or epochs, so it takes few of both.

    python -m benchmarks.zoo --larger [--networks 1130000] [--folder FOLDER]

trains one epoch of a small MLP on a synthetic zoo that is read from its mapped files, in a process of its own, and the
same at a tenth of the size from the files and from memory, which must give the same numbers (``redesign-memory.json``).
To see that the zoo does not have to fit, run it where memory is limited: the record holds the limit of its cgroup.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

import weightspace as ws
from benchmarks._common import peak_mb, save, spread, timed
from weightspace.bench._sizes import SMALL
from weightspace.fitting._fit_zoo import SHARD
from weightspace.zoo import ZooWriter

SPEC = ws.siren(2, 32, 32, 1)
WEIGHTS = {"mapped": "read from the mapped files", "resident": "held in memory"}
SPARE = 2
"""How many times the zoo's size must be free on the disk for the large one."""


def build(path: Path, networks: int, shard_size: int) -> None:
    """Write a zoo of one split."""
    plan = [("train", min(shard_size, networks - start), start) for start in range(0, networks, shard_size)]
    block = torch.randn(shard_size, SPEC.num_params, generator=torch.Generator().manual_seed(0))
    with ZooWriter.create(path, SPEC, plan=plan, recipe={"synthetic": True}) as writer:
        for number, (_, count, start) in enumerate(plan):
            sources = torch.arange(start, start + count)
            flat = block[:count].clone()
            flat[:, 0] = sources % 2**20  # exact in float32
            psnr = torch.full((count,), 30.0)
            networks_of_shard = ws.Networks(ws.Weights(flat, SPEC), label=sources % 10, source=sources, psnr=psnr)
            writer.write(number, networks_of_shard, commit=False)
        writer.commit()


def opened(path: Path) -> float:
    """Return the seconds to open it in a fresh process, after the imports."""
    code = "import sys, time, weightspace as ws; t = time.perf_counter(); ws.Zoo.open(sys.argv[1]); "
    code += "print(time.perf_counter() - t)"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def epoch(zoo: ws.Zoo, batch_size: int, seed: int) -> float:
    """Return networks a second over one shuffled epoch of mapped shards, the drawing of the order included."""
    start, count = time.perf_counter(), 0
    generator = torch.Generator().manual_seed(seed)
    for batch in zoo.batches("train", batch_size, generator=generator, resident_bytes=0):
        count += len(batch)
        if count == batch_size and zoo.count("train") <= 2**20:  # each network of a batch still has its own number
            assert torch.equal(batch.weights.flat[:, 0].long() % 10, batch.label % 10)
    assert count == zoo.count("train")
    return count / (time.perf_counter() - start)


def reading(folder: Path, networks: int, shard_size: int, repeats: int) -> dict[str, Any]:
    """Return the record of opening and reading."""
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


def fit(path: Path, images: int, steps: int) -> dict[str, Any]:
    """Fit a zoo in this process; return its peak memory."""
    counts = {"train": images * 9 // 10, "val": images // 10, "test": images // 6}
    zoo = ws.fit_zoo(path, ws.datasets.load("fashion-mnist"), SPEC, config=ws.FitConfig(steps=steps), counts=counts)
    return {"peak_mb": peak_mb(), "networks": sum(zoo.count(s) for s in zoo.splits)}


def train(path: Path) -> dict[str, Any]:
    """Train on a zoo in this process; return its peak memory."""
    zoo = ws.Zoo.open(path)
    name, options = SMALL["dwsnet"]
    model = ws.models.build(name, zoo.spec, 10, seed=0, **options)
    ws.train(model, zoo, transform="noise+mixup", epochs=1, batch_size=512)
    return {"peak_mb": peak_mb(), "networks": sum(zoo.count(s) for s in zoo.splits)}


def memory(images: int, steps: int) -> dict[str, Any]:
    """Return the peak memory of fitting and of training, each in a fresh process."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for phase in ("fit", "train"):
            command = [sys.executable, "-m", "benchmarks.zoo", "--phase", phase, "--folder", folder]
            command += ["--images", str(images), "--steps", str(steps)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            found[phase] = json.loads(run.stdout.splitlines()[-1])
    return found


def memory_limit_mb() -> float | None:
    """Return the limit of this process' cgroup (version 1), which counts the pages of files that it reads too."""
    line = next((line for line in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in line), None)
    if line is None:
        return None
    folder = Path("/sys/fs/cgroup/memory" + line.split(":", 2)[2])
    limit = int((folder / "memory.limit_in_bytes").read_text()) / 2**20
    return limit if limit < 2**40 else None


class Resident(threading.Thread):
    """Watches a process' resident memory: its own pages, pages of mapped files, and both together, the largest each."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self.ended = {"RssAnon": 0.0, "RssFile": 0.0, "VmHWM": 0.0}, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.05):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in self.peak:
                    self.peak[name] = max(self.peak[name], int(value.split()[0]) / 1024)


def one_epoch(path: Path, *, resident: bool) -> dict[str, Any]:
    """Train a small model for an epoch in this process; return its memory, and a digest of what it has learned."""
    watch = Resident()
    watch.start()
    zoo = ws.Zoo.open(path)
    model = ws.models.MLP(zoo.spec, 10, hidden=64, layers=1, seed=0)
    begin = time.perf_counter()
    result = ws.train(model, zoo, epochs=1, batch_size=512, resident_bytes=2**62 if resident else 0)
    seconds = time.perf_counter() - begin
    watch.ended.set()
    learned = b"".join(value.detach().numpy().tobytes() for value in model.parameters())
    return {
        "networks": zoo.count("train"),
        "weights_gb": zoo.count("train") * zoo.spec.num_params * 4 / 1e9,
        "weights": WEIGHTS["resident" if resident else "mapped"],
        "seconds": seconds,
        "peak_anonymous_mb": watch.peak["RssAnon"],
        "peak_mapped_files_mb": watch.peak["RssFile"],
        "peak_resident_mb": watch.peak["VmHWM"],
        "loss": result.history[0]["loss"],
        "learned_sha256": hashlib.sha256(learned).hexdigest(),
    }


def larger(folder: Path, networks: int, shard_size: int) -> list[dict[str, Any]]:
    """Return a row each for a zoo read from its files, and a small one read from its files and from memory."""
    rows = []
    for count in (networks // 10, networks):
        path = folder / f"zoo-{count}"
        if not (path / "manifest.json").exists():
            build(path, count, shard_size)
        for phase in ("mapped", "resident"):
            for file in path.glob("*.safetensors"):  # so that pages count where they are read, not where written
                with file.open("rb") as opened_file:
                    os.posix_fadvise(opened_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            command = [sys.executable, "-m", "benchmarks.zoo", "--phase", phase, "--folder", str(path)]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode == -signal.SIGKILL:  # what the kernel does to a process that exceeds the limit
                rows.append({"networks": count, "weights": WEIGHTS[phase], "ended_by": "SIGKILL"})
            else:
                run.check_returncode()
                rows.append(json.loads(run.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, help="a million, or 200,000 on a small disk")
    parser.add_argument("--shard-size", type=int, default=SHARD)
    parser.add_argument("--folder", type=Path, help="where to keep the zoo for another run; nowhere if not given")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="measure peak memory instead")
    parser.add_argument("--images", type=int, default=60000, help="of the memory")
    parser.add_argument("--steps", type=int, default=2, help="of the memory")
    parser.add_argument("--larger", action="store_true", help="train on a zoo that is larger than the memory instead")
    parser.add_argument("--phase", choices=["fit", "train", "mapped", "resident"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.phase in ("mapped", "resident"):
        torch.set_num_threads(1)
        print(json.dumps(one_epoch(args.folder, resident=args.phase == "resident")))
        return
    if args.phase:
        path = args.folder / "zoo"
        print(json.dumps(fit(path, args.images, args.steps) if args.phase == "fit" else train(path)))
        return
    if args.memory:
        what = "peak resident memory, MB, of one process"
        save("memory", {"benchmark": "zoo", "what": what, **memory(args.images, args.steps)})
        return
    with contextlib.nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory() as folder:
        if args.larger:
            what = "one epoch of an MLP with 64 hidden neurons, batches of 512, one thread, a process for every row"
            rows = larger(Path(folder), args.networks or 1_130_000, args.shard_size)
            save(
                "redesign-memory",
                {"benchmark": "zoo", "what": what, "memory_limit_mb": memory_limit_mb(), "rows": rows},
                threads=1,
            )
            return
        room = shutil.disk_usage(folder).free // (SPARE * 4 * SPEC.num_params)
        networks = args.networks or (1_000_000 if room > 1_000_000 else 200_000)
        record = reading(Path(folder), networks, args.shard_size, args.repeats)
    save("zoo", {"benchmark": "zoo", "what": "opening, and random batches from the page cache", **record})


if __name__ == "__main__":
    main()
