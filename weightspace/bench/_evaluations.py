"""Evaluations of trained models: the score of their objective, and averages over moved copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from weightspace.models import Averaged, WeightModel
from weightspace.training import Classification, Objective
from weightspace.training._run import Part, score
from weightspace.transforms import Transform
from weightspace.zoo import Zoo
from weightspace.zoo._zoo import RESIDENT_BYTES


def scores(model: WeightModel, zoo: Zoo, objective: Objective | None, device: str) -> dict[str, float]:
    """Return the mean score of a model on every split but "train"."""
    objective = objective or Classification.for_zoo(zoo)
    model = model.to(device).eval()
    parts = {
        name: Part(zoo, name, None, torch.device(device), RESIDENT_BYTES) for name in zoo.splits if name != "train"
    }
    return {name: score(model, part, objective) for name, part in parts.items()}


@dataclass(frozen=True)
class UnseenViews:
    """An evaluation on other networks of the training signals than those that were trained on.

    Next to the score of the test split it tells what a model does not carry over: from one fit of a signal to another,
    or from one signal to another.

    Args:
        views: how many views of each signal were trained on.
    """

    views: int

    def __call__(self, model: WeightModel, zoo: Zoo, device: str) -> dict[str, float]:
        rows = torch.nonzero(zoo.views("train") >= self.views)[:, 0]
        if not len(rows):
            return {}
        part = Part(zoo, "train", rows, torch.device(device), RESIDENT_BYTES)
        return {"unseen_views": score(model.to(device).eval(), part, Classification.for_zoo(zoo))}


@dataclass(frozen=True)
class AveragedCopies:
    """An evaluation of a classifier whose outputs are averaged over a network and moved copies of it.

    This is test-time augmentation, see :class:`weightspace.models.Averaged`.

    Args:
        transforms: one copy each.
    """

    transforms: Sequence[Transform]

    def __call__(self, model: WeightModel, zoo: Zoo, device: str) -> dict[str, float]:
        return scores(Averaged(model, list(self.transforms)), zoo, None, device)
