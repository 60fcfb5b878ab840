"""Draw the picture of the README: fitted networks, the same after augmentations, and midpoints of pairs.

python -m benchmarks.picture ZOO [--out docs/img/augmentations.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import weightspace as ws
from weightspace.report._pictures import distinct, render, resolution

ROWS = ("rotate", "translate", "shear", "noise", "permute", "sign")
COLUMNS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/img/augmentations.png"))
    args = parser.parse_args()
    zoo = ws.Zoo.open(args.zoo)
    size, gen = resolution(zoo.provenance), torch.Generator().manual_seed(0)
    weights = zoo.weights("train")[distinct(zoo.labels("train")[:1000], COLUMNS)]
    partner = weights[torch.arange(COLUMNS).roll(-1)]
    rows: list[tuple[str, np.ndarray]] = [("fitted networks", render(weights, size))]
    for name in ROWS:
        rows.append((name, render(ws.transforms.augmentation(name)(weights, generator=gen), size)))
    for title, moved in (
        ("midpoint with the next", partner),
        ("... aligned, permutations", ws.align.match(weights, partner, group="permutation").act(partner)),
        ("... aligned, with signs", ws.align.match(weights, partner, group="signed").act(partner)),
    ):
        rows.append((title, render(weights.replace((weights.flat + moved.flat) / 2), size)))
    figure = Figure(figsize=(COLUMNS * 0.62 + 2.1, len(rows) * 0.64), dpi=130)
    axes = figure.subplots(len(rows), COLUMNS, gridspec_kw={"wspace": 0.06, "hspace": 0.06})
    for line, (title, images) in zip(axes, rows, strict=True):
        for ax, image in zip(line, images, strict=True):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255)
            ax.set_axis_off()
        line[0].text(-0.15, 0.5, title, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    figure.subplots_adjust(left=2.05 / (COLUMNS * 0.62 + 2.1), right=0.995, top=0.995, bottom=0.005)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.out, facecolor="white")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
