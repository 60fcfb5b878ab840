"""Everything that a GPU is to be measured for, in one command and one file, most valuable first.

    python -m benchmarks.gpu --out DIR [--seconds 480] [--only fit models] [--tiny]

Each step is a process with its own time limit. It writes what it has found as it goes, so that a step that runs out of
time, or breaks, leaves its rows; ``DIR/gpu.json`` holds all of them, and ``DIR/gpu.log`` the output. Steps:

``tests``: the tests marked ``gpu``, and those of the device fixture on CUDA.
``fit``: the Triton kernel against the tensor path and ``torch.func.vmap``: equal results, networks a second at 1,000
steps, and the share of the device's fp32 peak.
``align``: weight matching on the device (auction) against the compiled kernel on the CPU.
``models``: a training step of every model in float32, under bf16 autocast, as a CUDA graph and by ``torch.compile``.
``transforms``: networks a second of every transform on the device and on the CPU, and of loading a zoo.
``study``: a row of the study on Fashion-MNIST: networks fitted and DWSNet trained on the device.

On a machine without CUDA, or with ``--tiny``, the same steps run at sizes that measure nothing, and the file says so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import _gpu_steps
from benchmarks._common import save_to
from weightspace._files import read_json
from weightspace.bench._environment import environment

SHARES = {"tests": 0.2, "fit": 0.2, "align": 0.1, "models": 0.3, "transforms": 0.08, "study": 0.12}
"""The share of the time that each step may take at most; what a step does not use is left to those behind it."""
LEAST = 5.0
"""Seconds that a step needs to start at all."""


def run_step(name: str, out: Path, seconds: float, tiny: bool) -> dict[str, Any]:
    """Run a step in a process; return its record, and how it ended."""
    part, begun = out / f"{name}.part.json", time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.gpu", "--step", name, "--out", str(out), "--seconds", f"{seconds:.0f}"]
    with open(out / "gpu.log", "a") as log:
        log.write(f"--- {name}\n")
        log.flush()
        process = subprocess.Popen(
            [*command, *(["--tiny"] if tiny else [])],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=seconds)
            status = f"ended with exit code {code}" if code else "done"
        except subprocess.TimeoutExpired:
            status = f"ended after its {seconds:.0f} seconds"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the step, and the processes that it has started
            process.wait()
    found = read_json(part, "the rows of a step", finite=True, remedy="run it again") if part.exists() else {}
    part.unlink(missing_ok=True)
    return {"step": name, "status": status, "seconds": time.perf_counter() - begun, **found}


def device_facts() -> dict[str, Any]:
    """Describe the device and its fp32 peak."""
    if not torch.cuda.is_available():
        return {"device": "cpu", "note": "no CUDA device: the steps ran at sizes that measure nothing"}
    found = torch.cuda.get_device_properties(0)
    facts = {
        "device": found.name,
        "memory_gb": found.total_memory / 1e9,
        "multiprocessors": found.multi_processor_count,
    }
    return {**facts, "capability": f"{found.major}.{found.minor}", "fp32_peak_flop": _gpu_steps.fp32_peak()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--only", nargs="*", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--tiny", action="store_true", help="sizes that measure nothing, as on a machine without CUDA")
    parser.add_argument("--step", choices=list(SHARES), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tiny = args.tiny or not torch.cuda.is_available()
    if args.step:
        _gpu_steps.STEPS[args.step](_gpu_steps.Step(args.out / f"{args.step}.part.json", args.seconds, tiny))
        return
    begun, steps = time.perf_counter(), []
    record = {**environment(), "benchmark": "gpu", **device_facts(), "tiny": tiny, "seconds": args.seconds}
    if tiny:
        print("sizes that measure nothing" + ("" if torch.cuda.is_available() else ": this machine has no CUDA device"))
    for number, name in enumerate(args.only):
        left = args.seconds - (time.perf_counter() - begun)
        limit = left * SHARES[name] / sum(SHARES[later] for later in args.only[number:])
        if limit < LEAST:
            steps.append({"step": name, "status": "left out, no time", "seconds": 0.0})
        else:
            print(f"{name}: at most {limit:.0f} s", flush=True)
            steps.append(run_step(name, args.out, limit, tiny))
        print(f"{name}: {steps[-1]['status']}, {steps[-1]['seconds']:.0f} s", flush=True)
        save_to(args.out / "gpu.json", {**record, "steps": steps})
    print(f"wrote {args.out / 'gpu.json'}")


if __name__ == "__main__":
    main()
