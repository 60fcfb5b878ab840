"""Networks drawn side by side as one picture: pictures, curves, slices of shapes, filters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from weightspace._evaluate import evaluate, grid
from weightspace._weights import Weights, check_weights
from weightspace.report._pictures import MOST_SIDE, SIDE, render, resolution
from weightspace.zoo import Zoo

COLUMNS, ROWS, GAP = 16, 6, 2


def write_picture(zoo: Zoo, path: str | Path) -> Path:
    """Draw the first networks of a zoo's first split, side by side, as a PNG file; see :func:`picture`.

    Raises:
        ValueError: for a zoo without finished shards, or networks that cannot be drawn.
    """
    if not zoo.splits:
        raise ValueError(f"{zoo.path}: expected finished shards to draw, got none; let the fit go on first")
    split = zoo.splits[0]
    return picture(zoo.weights(split)[: COLUMNS * ROWS], path, size=resolution(zoo.provenance))


def picture(weights: Weights, path: str | Path, *, size: tuple[int, int] | None = None) -> Path:
    """Draw networks side by side as a PNG file.

    A function of two coordinates is drawn as the picture that it is, grey or in colour; one of a single coordinate as
    its curve; one of three coordinates as three slices through the middle, values at zero in the middle grey. Of other
    networks, such as CNNs, the kernels of the first convolution are drawn, or the first matrix.

    Args:
        weights: ``[batch, param]``; at most 96 networks are drawn.
        path: the file to write.
        size: height and width of a picture in pixels, 28 x 28 by default.

    Returns:
        ``path``.

    Raises:
        TypeError: for something other than ``Weights``.
        ValueError: for no networks, or networks without anything to draw.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> w = ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1))
        >>> ws.report.picture(w, tempfile.mkdtemp() + "/three.png").name
        'three.png'
    """
    check_weights("weights", weights)
    if weights.flat.ndim != 2 or not len(weights):
        raise ValueError(f"weights: expected at least one network, got {list(weights.flat.shape)}")
    images = _drawn(weights[: COLUMNS * ROWS].to("cpu"), size or (SIDE, SIDE))
    height, width = images.shape[1:3]
    columns = min(COLUMNS, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full(
        (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, *images.shape[3:]), 255, dtype=np.uint8
    )
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + GAP), (number % columns) * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    made = Image.fromarray(sheet)
    zoom = max(1, 1200 // sheet.shape[1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.resize((made.width * zoom, made.height * zoom), Image.Resampling.NEAREST).save(path, format="PNG")
    return path


def _drawn(weights: Weights, size: tuple[int, int]) -> np.ndarray:
    """Return a picture of each network, uint8 ``[batch, height, width]`` or with colours."""
    try:
        inputs = weights.spec.in_features if weights.spec.layers else 0
    except ValueError:
        inputs = 0
    if inputs == 2:
        return render(weights, size)
    if inputs == 1:
        return _curves(weights, 2 * size[0], 2 * size[1])
    if inputs == 3:
        return _slices(weights, min(size[0], MOST_SIDE))
    return _filters(weights)


def _curves(weights: Weights, height: int, width: int) -> np.ndarray:
    """Draw functions of one coordinate, all on one scale."""
    values = evaluate(weights, torch.linspace(-1, 1, width)[:, None].to(weights.flat)).detach()[:, :, 0].nan_to_num()
    low, high = float(values.min()), float(values.max())
    rows = ((high - values) / max(high - low, 1e-9) * (height - 1)).round().long().clamp(0, height - 1)
    out = np.full((len(weights), height, width), 255, dtype=np.uint8)
    for number, line in enumerate(rows.tolist()):
        for column, row in enumerate(line):
            before = line[max(0, column - 1)]
            out[number, min(row, before) : max(row, before) + 1, column] = 0
    return out


def _slices(weights: Weights, side: int) -> np.ndarray:
    """Draw the planes through the middle of functions of three coordinates, side by side."""
    plane, parts = grid(side, side), []
    for axis in range(3):
        points = torch.zeros(len(plane), 3)
        points[:, [other for other in range(3) if other != axis]] = plane
        values = evaluate(weights, points.to(weights.flat)).detach()[:, :, 0].nan_to_num()
        parts.append((127.5 + 127.5 * values.clamp(-1, 1)).reshape(len(weights), side, side))
    return torch.cat(parts, dim=2).round().to(torch.uint8).numpy()


def _filters(weights: Weights) -> np.ndarray:
    """Draw the kernels of the first convolution, input channels averaged, or else the first matrix."""
    found = [(p.name, weights.spec.shape(p.name)) for p in weights.spec.params]
    kernels = next((name for name, shape in found if len(shape) == 4), None)
    name = kernels or next((name for name, shape in found if len(shape) >= 2), None)
    if name is None:
        raise ValueError(
            f"weights: expected networks with a function, a kernel or a matrix to draw, got {weights.spec}"
        )
    values = weights.view(name).detach().float()
    if kernels is not None:
        values = values.mean(2)  # [batch, out, height, width]
        side = int(np.ceil(np.sqrt(values.shape[1])))
        padded = torch.nn.functional.pad(values, (0, 1, 0, 1))
        room = padded.new_zeros(len(values), side * side, *padded.shape[2:])
        room[:, : padded.shape[1]] = padded
        values = (
            room.reshape(len(values), side, side, *padded.shape[2:]).permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)
        )
    else:
        values = values.flatten(2)
    scale = values.abs().flatten(1).amax(1).clamp(min=1e-9)[:, None, None]
    return (127.5 + 127.5 * values / scale).round().to(torch.uint8).numpy()
