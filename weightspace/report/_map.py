"""A map of features in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weightspace._extras import optional

MOST_CLASSES = 20


def flat_map(features: np.ndarray, method: str) -> np.ndarray:
    """Return a place in the plane for each row of features, by ``"pca"`` or ``"umap"``.

    Raises:
        ImportError: for ``"umap"`` where umap-learn is not installed.
        ValueError: for fewer than two rows.
    """
    if len(features) < 2:
        raise ValueError(f"expected at least two networks to map, got {len(features)}")
    if method == "umap":
        umap: Any = optional("umap", "umap-learn", "all", "a map by UMAP")
        return np.asarray(umap.UMAP(random_state=0).fit_transform(features))
    centred = features - features.mean(0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    places = left[:, :2] * scale[:2]
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))


def draw_map(places: np.ndarray, labels: np.ndarray, classes: Sequence[str], path: Path) -> Path:
    """Draw points in the plane, in the colours of their labels, as a PNG file."""
    backend = optional("matplotlib.figure", "matplotlib", "report", "drawing a map")
    figure = backend.Figure(figsize=(7, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    size = max(4.0, min(30.0, 6000 / len(places)))
    if labels.dtype.kind == "f" or len(np.unique(labels)) > MOST_CLASSES:
        shown = axes.scatter(*places.T, c=labels, s=size, linewidths=0)
        figure.colorbar(shown, label="label")
    else:
        for number in np.unique(labels).tolist():
            name = "unlabelled" if number < 0 else classes[number] if number < len(classes) else str(number)
            rows = labels == number
            axes.scatter(*places[rows].T, color=f"C{number % 10}" if number >= 0 else "0.7", s=size, label=name, lw=0)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", frameon=False)
    axes.set_xticks([])
    axes.set_yticks([])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
