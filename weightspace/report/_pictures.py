"""Draw pictures of INRs before and after each augmentation, and between two networks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from weightspace._evaluate import evaluate, grid
from weightspace._symmetry import Group
from weightspace._weights import Weights
from weightspace.align import distance, match
from weightspace.transforms import AUGMENTATIONS
from weightspace.zoo import Zoo
from weightspace.zoo._summary import image_size

SHOWN, MEASURED, POOL = 6, 256, 1024
SIDE = 28
MOST_SIDE = 128
"""The longest side of a picture, in pixels: the record of a zoo may claim any."""
_MOST_VALUES = 1 << 24
PRESERVES = {
    "function": "preserves the function",
    "coordinates": "moves the coordinates",
    "nothing": "another function",
}
_GROUPS: tuple[Group, ...] = ("permutation", "signed", "full")


@dataclass(frozen=True)
class Picture:
    """A rendered network: a PNG as data URI, and a text that says what it shows."""

    uri: str
    alt: str


@dataclass(frozen=True)
class Strip:
    """A row of the grid: the networks after one augmentation, and the largest change of a pixel (of 255)."""

    name: str
    settings: str
    preserves: str
    pictures: tuple[Picture, ...]
    moved: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two networks, the networks halfway between them, and their mean squared distance, by alignment."""

    caption: str
    ends: tuple[Picture, Picture]
    middles: dict[str, Picture]
    distances: dict[str, float]


@dataclass(frozen=True)
class Gallery:
    """All pictures of a zoo.

    Args:
        zoo: name of the zoo's folder.
        split: from which the networks come.
        size: height and width of a picture, pixels.
        labels: captions of the columns of the grid.
        strips: the grid; the first is without augmentation.
        left_out: augmentations that do not fit these networks.
        pairs: MixUp pairs.
        measured: number of random pairs behind ``distances``.
        distances: mean squared weight distance of those, by alignment.
    """

    zoo: str
    split: str
    size: tuple[int, int]
    labels: tuple[str, ...]
    strips: tuple[Strip, ...]
    left_out: tuple[str, ...]
    pairs: tuple[Pair, ...]
    measured: int
    distances: dict[str, float]


def gallery(zoo: Zoo, *, seed: int = 0) -> Gallery | None:
    """Draw a zoo's networks, augmented and mixed; return None unless they are functions of 2 coordinates.

    Args:
        zoo: its "train" split is drawn, or its first one if it has none.
        seed: picks the networks and draws the augmentations.
    """
    if zoo.spec.in_features != 2:
        return None
    split = "train" if "train" in zoo.splits else zoo.splits[0]
    generator = torch.Generator().manual_seed(seed)
    networks = next(zoo.batches(split, min(POOL, zoo.count(split)), generator=generator))
    weights = networks.weights
    labels = torch.full((len(networks),), -1) if networks.label is None else networks.label
    names = [_class_name(zoo.classes, label) for label in labels.tolist()]
    size = resolution(zoo.provenance)
    shown = distinct(labels, SHOWN)
    strips, left_out = _strips(weights[shown], [names[i] for i in shown.tolist()], size, seed)
    groups = _groups(weights)
    pairs = _pairs(weights, labels, names, groups, size)
    measured = min(MEASURED, len(weights) // 2)
    a, b = weights[: 2 * measured : 2], weights[1 : 2 * measured : 2]
    means = {name: own.mean().item() for name, (_, own) in _aligned(a, b, groups).items()} if measured else {}
    columns = tuple(names[i] for i in shown.tolist())
    return Gallery(zoo.path.name, split, size, columns, strips, left_out, pairs, measured, means)


def resolution(provenance: Mapping[str, object]) -> tuple[int, int]:
    """Return height and width in pixels to draw at: as the zoo records them, at most 128 a side, or 28 x 28."""
    if (sides := image_size(provenance)) is None:
        return SIDE, SIDE
    scale = min(1.0, MOST_SIDE / max(sides))
    height, width = (max(1, round(side * scale)) for side in sides)
    return height, width


@torch.no_grad()
def render(weights: Weights, size: tuple[int, int]) -> np.ndarray:
    """Evaluate networks on a pixel grid, as uint8 ``[batch, height, width]`` or ``[batch, height, width, 3]``.

    One output is grey, three are RGB; of others the first is drawn. Values outside [0, 1] are clipped.
    """
    points = grid(*size)
    wide = max(axis.size for axis in weights.spec.axes)
    step = max(1, _MOST_VALUES // (len(points) * wide))  # networks at a time, so that wide ones take no more memory
    parts = [evaluate(weights[start : start + step], points) for start in range(0, len(weights), step)]
    values = torch.cat(parts).clamp(0, 1)
    values = values if values.shape[2] == 3 else values[:, :, 0]
    pixels = (255 * values.nan_to_num(0.0)).round().to(torch.uint8).cpu().numpy()
    return pixels.reshape(len(weights), *size, *pixels.shape[2:])


def distinct(labels: Tensor, count: int) -> Tensor:
    """Return the indices of ``count`` networks, of different labels as far as possible, by ascending label."""
    seen, first, rest = set[int](), list[int](), list[int]()
    for index, label in enumerate(labels.tolist()):
        (rest if label in seen else first).append(index)
        seen.add(label)
    chosen = (first + rest)[:count]
    return torch.tensor(sorted(chosen, key=lambda index: (float(labels[index]), index)), dtype=torch.int64)


def pair_indices(labels: Tensor, different: int = 4, same: int = 2) -> list[tuple[int, int]]:
    """Return pairs of neighbors in the batch: some of different labels, then some of the same label."""
    pairs = [(i, i + 1) for i in range(0, len(labels) - 1, 2)]
    unlike = [pair for pair in pairs if labels[pair[0]] != labels[pair[1]]]
    like = [pair for pair in pairs if labels[pair[0]] == labels[pair[1]]]
    chosen = unlike[:different] + like[: max(same, same + different - len(unlike))]
    return chosen[: different + same]


def _strips(
    weights: Weights, names: Sequence[str], size: tuple[int, int], seed: int
) -> tuple[tuple[Strip, ...], tuple[str, ...]]:
    before = render(weights, size)
    strips, left_out = [Strip("no augmentation", "", "", _pictures(before, names, "as fitted"))], []
    for name, transform in AUGMENTATIONS.items():
        try:
            transform.check(weights.spec)
        except ValueError:
            left_out.append(name)
            continue
        after = render(transform(weights, generator=torch.Generator().manual_seed(seed)), size)
        moved = float(np.abs(after.astype(int) - before.astype(int)).max())
        preserves = PRESERVES[transform.preserves]
        strips.append(Strip(name, repr(transform), preserves, _pictures(after, names, f"after {name}"), moved))
    return tuple(strips), tuple(left_out)


def _groups(weights: Weights) -> tuple[Group, ...]:
    """Return the groups over which these networks can be matched."""
    out = []
    for group in _GROUPS:
        try:
            match(weights[:1], weights[:1], group=group)
        except (ValueError, NotImplementedError):
            continue
        out.append(group)
    return tuple(out)


def _aligned(a: Weights, b: Weights, groups: Sequence[Group]) -> dict[str, tuple[Weights, Tensor]]:
    """Match ``b`` to ``a``; return it and its mean squared distance to ``a``, ``[batch]``, by group."""
    moved: dict[str, Weights] = {"none": b} | {group: match(a, b, group=group).act(b) for group in groups}
    return {name: (own, distance(a, own) / a.spec.num_params) for name, own in moved.items()}


def _pairs(
    weights: Weights, labels: Tensor, names: Sequence[str], groups: Sequence[Group], size: tuple[int, int]
) -> tuple[Pair, ...]:
    chosen = pair_indices(labels)
    if not chosen:
        return ()
    first, second = (torch.tensor(side) for side in zip(*chosen, strict=True))
    a, b = weights[first], weights[second]
    ends = render(a, size), render(b, size)
    aligned = _aligned(a, b, groups)
    middles = {name: render(a.replace((a.flat + own.flat) / 2), size) for name, (own, _) in aligned.items()}
    out = []
    for row, (i, j) in enumerate(chosen):
        left, right = names[i] or "a", names[j] or "b"
        caption = f"{left} and {right}"
        out.append(
            Pair(
                caption,
                (Picture(_png(ends[0][row]), left), Picture(_png(ends[1][row]), right)),
                {n: Picture(_png(m[row]), f"midpoint of {caption}, alignment: {n}") for n, m in middles.items()},
                {n: own[row].item() for n, (_, own) in aligned.items()},
            )
        )
    return tuple(out)


def _class_name(classes: Sequence[str], label: float) -> str:
    if isinstance(label, float):
        return f"{label:.3g}"  # a real-valued label is a number to predict
    if label < 0:
        return ""
    return classes[label] if label < len(classes) else f"class {label}"


def _pictures(images: np.ndarray, names: Sequence[str], state: str) -> tuple[Picture, ...]:
    return tuple(
        Picture(_png(image), f"{name or 'network'} {state}") for image, name in zip(images, names, strict=True)
    )


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
