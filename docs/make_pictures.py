"""Make the pictures of the pages: of the tutorials from their own code, of the results from the committed records.

    python docs/make_pictures.py [tutorials] [results]

Run it in a checkout where the package is installed with its extra ``report``.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
IMG, RECORDS = ROOT / "docs" / "img", ROOT / "benchmarks" / "results"
INK, ACCENT, SOFT = "#4051b5", "#d9622b", "#9aa3b5"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "weightspace",
    "svg.fonttype": "path",
    "figure.dpi": 100,
}


def run(page: str) -> dict[str, Any]:
    """Execute a page's Python blocks in order; the names that they define."""
    text = (ROOT / "docs" / "tutorials" / page).read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "__main__"}
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for code in re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
                exec(code, names)
        finally:
            os.chdir(here)
    return names


def save(figure: Any, name: str) -> None:
    options = {"metadata": {"Date": None}} if name.endswith(".svg") else {"dpi": 80}
    figure.savefig(IMG / name, bbox_inches="tight", facecolor="white", **options)
    plt.close(figure)


def strips(rows: dict[str, torch.Tensor], name: str) -> None:
    """Draw rows of pictures, each with its label."""
    width = max(len(pictures) for pictures in rows.values())
    figure, axes = plt.subplots(len(rows), width, figsize=(0.8 * width + 0.8, 0.85 * len(rows)), squeeze=False)
    for line, (label, pictures) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.axis("off")
        for axis, picture in zip(line, pictures, strict=False):
            axis.imshow(picture.detach(), cmap="gray", vmin=0, vmax=1)
        line[0].text(-0.15, 0.5, label, transform=line[0].transAxes, ha="right", va="center")
    save(figure, name)


def tutorials() -> None:
    """Draw the pictures of the three tutorials."""
    names = run("augment-inrs.md")
    draw = names["draw"]
    strips({"fitted": draw(names["w"])}, "tutorial-fit.png")
    rows = {"fitted": "w", "permuted, signs flipped": "moved", "rotated": "rotated", "noise": "noisy"}
    strips({label: draw(names[key]) for label, key in rows.items()}, "tutorial-augment.png")
    rows = {"first": "a", "second": "b", "plain midpoint": "plain", "aligned midpoint": "aligned"}
    strips({label: draw(names[key]) for label, key in rows.items()}, "tutorial-mix.png")

    names = run("classify-and-edit.md")
    ws, grid = names["ws"], names["grid"]
    pictures = [ws.evaluate(names[key], grid).reshape(-1, 28, 28).clamp(0, 1) for key in ("before", "after")]
    strips({"before": pictures[0], "after the edit": pictures[1]}, "tutorial-edit.png")

    history = names["history"]
    figure, axis = plt.subplots(figsize=(4.5, 2.6))
    epochs = [line["epoch"] for line in history]
    axis.plot(epochs, [line["val"] for line in history], color=INK, marker="o", label="validation accuracy")
    axis.plot(epochs, [line["train"] for line in history], color=SOFT, marker="o", label="training accuracy")
    axis.set(xlabel="epoch", ylabel="accuracy")
    axis.legend(frameon=False)
    save(figure, "tutorial-classify.svg")

    names = run("align-and-merge.md")
    figure, axis = plt.subplots(figsize=(4.5, 2.6))
    axis.plot(names["ts"], names["plain"], color=SOFT, marker="o", label="plain average")
    axis.plot(names["ts"], names["aligned"], color=INK, marker="o", label="aligned first")
    axis.set(xlabel="share of the second network", ylabel="test loss", ylim=(0, None))
    axis.legend(frameon=False)
    save(figure, "tutorial-merge.svg")


def record(name: str) -> dict[str, Any]:
    return json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))


def results() -> None:
    """Draw one plot for each page of results, from the records."""
    rows = [row for row in record("fashion-mnist")["rows"] if row["model"] == "dwsnet"]
    base = next(row for row in rows if row["augmentation"] == "none")["test_mean"]
    rows = sorted((row for row in rows if row["augmentation"] != "none"), key=lambda row: row["test_mean"])
    figure, axis = plt.subplots(figsize=(6, 4))
    values = [100 * (row["test_mean"] - base) for row in rows]
    spread = [100 * (row["test_std"] or 0) for row in rows]
    axis.barh([row["augmentation"] for row in rows], values, xerr=spread, color=INK, ecolor=SOFT)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(xlabel=f"test accuracy minus that without augmentation ({100 * base:.1f} %), points", xlim=(-6, 5))
    axis.annotate("phase: -33.5", (-6, 0), xytext=(-5.8, 0), va="center", color="white", fontsize=8)
    save(figure, "results-augmentation.svg")

    rows = record("scale-fashion")["rows"]
    figure, axis = plt.subplots(figsize=(6, 3.6))
    names = {"none": "no augmentation", "negate": "signs", "combined": "signs, noise, translation"}
    names["combined+mixup-permutation"] = "these and aligned MixUp"
    for (name, label), colour in zip(names.items(), (SOFT, INK, ACCENT, "#2b8a5a"), strict=True):
        own = sorted((row["train_options"]["share"], row) for row in rows if row["augmentation"] == name)
        x, y = [share for share, _ in own], [100 * row["test_mean"] for _, row in own]
        axis.errorbar(
            x, y, yerr=[100 * (row["test_std"] or 0) for _, row in own], color=colour, marker="o", label=label
        )
    axis.set_xscale("log")
    axis.set_xticks([0.01, 0.03, 0.1, 0.3, 1], ["1 %", "3 %", "10 %", "30 %", "100 %"])
    axis.minorticks_off()
    axis.set(xlabel="share of 12,000 training images", ylabel="test accuracy, %")
    axis.legend(frameon=False)
    save(figure, "results-scale.svg")

    best: dict[tuple[str, str], float] = {}
    for row in record("models-full")["rows"]:
        key = row["track"], row["model"]
        best[key] = max(best.get(key, 0.0), row["test_mean"])
    colours = {"weights-only": INK, "probing": ACCENT, "function": SOFT}
    ranked = sorted(best.items(), key=lambda item: (list(colours).index(item[0][0]), item[1]))
    figure, axis = plt.subplots(figsize=(6, 4.4))
    axis.barh(
        [model for (_, model), _ in ranked],
        [100 * value for _, value in ranked],
        color=[colours[track] for (track, _), _ in ranked],
    )
    for track, colour in colours.items():
        axis.bar(0, 0, color=colour, label=track)
    axis.set(xlabel="test accuracy, %")
    axis.legend(frameon=False, loc="lower right")
    save(figure, "results-models.svg")

    rows = [row for row in record("aligners")["rows"] if row["group"] in ("full", "none")]
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    for row in rows:
        x, y = row["squared_distance"]["mean"], row["midpoint_error"]
        axis.scatter(x, y, color=INK)
        axis.annotate(row["method"], (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axis.set(xlabel="squared distance left", ylabel="error at the midpoint")
    save(figure, "results-alignment.svg")

    rates = record("fit")["networks_per_second_at_1000_steps"]
    ranked = sorted(
        ((name, own["median"], own) for name, own in rates.items() if own.get("median")), key=lambda r: r[1]
    )
    figure, axis = plt.subplots(figsize=(6, 3))
    error = np.array([[own["median"] - own["min"], own["max"] - own["median"]] for _, _, own in ranked]).T
    axis.barh([name for name, _, _ in ranked], [value for _, value, _ in ranked], xerr=error, color=INK, ecolor=SOFT)
    axis.set(xlabel="networks a second, 1,000 steps")
    save(figure, "results-fitting.svg")


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["tutorials", "results"]
    with mpl.rc_context(STYLE):
        for name in wanted:
            {"tutorials": tutorials, "results": results}[name]()
