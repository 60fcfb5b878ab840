"""Kept models of one recipe as one: the mean of their outputs, read both ways, next to each by itself.

    python -m benchmarks.ensemble [--zoo runs/zoo] [--kept runs/kept] [--model query-grid] [--seeds 0 1 2]

Reads what ``benchmarks.ours --keep`` left, one folder a seed. Every model, and their mean, is read as the mean over a
network and its mirror image: for recipes trained on mirror images too. ``--shift 0.07`` reads every model once more,
as the mean over ten copies: both of these where they are, and moved by that distance to each of the four sides.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

import weightspace as ws
from benchmarks._common import save
from benchmarks.ours import RECIPES, opened
from weightspace.training import Classification, Split, num_classes, score
from weightspace.transforms import Affine, Transform

SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))
SAME, MIRRORED = ((1, 0), (0, 1)), ((1, 0), (0, -1))  # left and right: the second coordinate


def copies(shift: float) -> list[Transform]:
    """The mirror image, and both moved by ``shift`` to each side where it is not zero."""
    moved = [[shift * axis for axis in side] for side in SIDES] if shift else []
    return [Affine(MIRRORED), *(Affine(matrix, offset) for matrix in (SAME, MIRRORED) for offset in moved)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--zoo", default="runs/zoo")
    parser.add_argument("--kept", default="runs/kept")
    parser.add_argument("--model", choices=sorted(RECIPES), default="query-grid")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--shift", type=float, default=0.0, help="in units of the coordinates: an image spans [-1, 1]")
    parser.add_argument("--threads", type=int, help="by default torch's choice")
    parser.add_argument("--record", default="ensemble", help="name of the record")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    zoo, source = opened(args.zoo, None)
    models = {seed: ws.models.load_model(Path(args.kept) / f"{args.model}-{seed}").eval() for seed in args.seeds}
    objective = Classification(num_classes(zoo))

    def read(model: ws.models.Model, shift: float = 0.0) -> dict[str, float]:
        averaged = ws.models.Averaged(model, copies(shift)).eval()
        parts = {part: Split(zoo.weights(part), zoo.labels(part)) for part in zoo.splits if part != "train"}
        return {part: score(averaged, split, objective) for part, split in parts.items()}

    about = {"benchmark": "ensemble", "networks": source, "counts": {s: zoo.count(s) for s in zoo.splits}}
    about |= {"model": args.model, "seeds": args.seeds}
    found: dict[str, Any] = {"members": {str(seed): read(model) for seed, model in models.items()}}
    together = ws.models.Ensemble(list(models.values()))
    found |= {"ensemble": read(together), "parameters": together.num_parameters}
    if args.shift:
        shifted = {str(seed): read(model, args.shift) for seed, model in models.items()}
        found["ten_copies"] = {"shift": args.shift, "members": shifted}
    save(args.record, {**about, **found}, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
