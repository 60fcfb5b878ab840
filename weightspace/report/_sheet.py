"""Draw the first networks of a zoo as one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from weightspace.report._pictures import render, resolution
from weightspace.zoo import Zoo

COLUMNS, ROWS, GAP = 16, 6, 2


def write_picture(zoo: Zoo, path: str | Path) -> Path:
    """Draw the first networks of a zoo's first split, side by side, as a PNG file.

    Args:
        zoo: a zoo of functions of two coordinates.
        path: the file to write.

    Returns:
        ``path``.

    Raises:
        ValueError: if the networks are not functions of two coordinates.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import weightspace as ws
        >>> from weightspace.zoo import write_zoo
        >>> spec = ws.siren(2, 4, 1)
        >>> networks = ws.Networks(ws.Weights(torch.zeros(3, spec.num_params), spec))
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_picture(write_zoo(folder / "zoo", {"train": networks}), folder / "zoo.png").name
        'zoo.png'
    """
    if zoo.spec.in_features != 2:
        raise ValueError(f"expected networks of 2 coordinates to draw, got {zoo.spec.in_features} inputs")
    if not zoo.splits:
        raise ValueError(f"{zoo.path}: expected finished shards to draw, got none; let the fit go on first")
    split = zoo.splits[0]
    images = render(zoo.weights(split)[: COLUMNS * ROWS], resolution(zoo.provenance))
    height, width = images.shape[1:3]
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full(
        (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, *images.shape[3:]), 255, dtype=np.uint8
    )
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + GAP), (number % columns) * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet)
    zoom = max(1, 1200 // sheet.shape[1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path, format="PNG")
    return path
