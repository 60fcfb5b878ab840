"""What the benchmarks that train on one zoo share: their options, and what their records say of it."""

from __future__ import annotations

import argparse
from typing import Any

import torch

import weightspace as ws
from benchmarks.ours import opened


def options(models: str, names: list[str]) -> argparse.ArgumentParser:
    """The zoo, the models to train, the budget."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--zoo", default="runs/zoo")
    parser.add_argument(f"--{models}", nargs="*", choices=names, default=names)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="by default torch's choice")
    return parser


def begun(benchmark: str, args: argparse.Namespace) -> tuple[ws.Zoo, dict[str, Any]]:
    """The zoo, and how the record begins."""
    if args.threads:
        torch.set_num_threads(args.threads)
    zoo, source = opened(args.zoo, None)
    about = {"benchmark": benchmark, "networks": source, "counts": {s: zoo.count(s) for s in zoo.splits}}
    return zoo, {**about, "epochs": args.epochs, "seed": args.seed}
