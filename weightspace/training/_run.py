"""The state of a training run, and what one epoch does to it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from weightspace._weights import Weights
from weightspace._random import seeded
from weightspace.models import Model
from weightspace.training._config import TrainConfig, schedule
from weightspace.training._objectives import Objective
from weightspace.transforms import Transform

EVAL_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Split:
    """Networks and their labels on the device that trains."""

    weights: Weights
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@torch.no_grad()
def score(model: Model, split: Split, objective: Objective) -> float:
    """Mean score of a model on a split."""
    model.eval()
    parts = []
    for start in range(0, len(split), EVAL_BATCH):
        rows = slice(start, start + EVAL_BATCH)
        weights = split.weights[rows]
        parts.append(objective.score(output_of(model, weights, objective), split.labels[rows], weights))
    return torch.cat(parts).mean().item()


def output_of(model: Model, weights: Weights, objective: Objective) -> Any:
    """What a model makes of networks, which must be what the objective is about."""
    output = model(weights)
    if not isinstance(output, objective.gives):
        kind, head = ("Weights", "equivariant") if objective.gives is Weights else ("a tensor", "invariant")
        raise TypeError(
            f"expected a model with an {head} head, which returns {kind}, got {type(output).__name__}; "
            f"build it with head={head!r}"
        )
    return output


class Run:
    """What changes from epoch to epoch, and can be kept and restored."""

    def __init__(
        self,
        model: Model,
        splits: dict[str, Split],
        objective: Objective,
        transform: Transform | None,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self.model, self.splits, self.objective = model, splits, objective
        self.transform, self.config, self.device = transform, config, device
        self.generator = torch.Generator(device=device).manual_seed(config.seed)
        self.steps = max(1, len(splits["train"]) // config.batch_size)
        total = self.steps * config.epochs
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.scheduler = LambdaLR(self.optimizer, lambda step: schedule(step, total, config.warmup))
        self.epoch, self.best_epoch, self.best_val = 0, 0, -math.inf
        self.history: list[dict[str, float]] = []
        # What a running mean is of: parameters and running statistics, the model's own tensors; empty without one.
        state = model.state_dict().values() if config.ema else ()
        self.moving = [value.detach() for value in state if value.is_floating_point()]
        self.mean = [value.clone() for value in self.moving]
        self.best_state = self._copy()

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def _average(self, step: int) -> None:
        decay = min(self.config.ema, (1 + step) / (10 + step))
        for mean, value in zip(self.mean, self.moving, strict=True):
            mean.lerp_(value, 1 - decay)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with its running mean for a while, where there is one."""
        own = [value.clone() for value in self.moving]
        for value, mean in zip(self.moving, self.mean, strict=True):
            value.copy_(mean)
        try:
            yield
        finally:
            for value, before in zip(self.moving, own, strict=True):
                value.copy_(before)

    def one_epoch(self) -> dict[str, float]:
        started, lr = time.perf_counter(), self.scheduler.get_last_lr()[0]
        with seeded(self.config.seed + 1_000_003 * (self.epoch + 1), self.device):  # dropout, the same after a resume
            loss, train = self._pass()
        self.epoch += 1
        with self._averaged():
            val = score(self.model, self.splits["val"], self.objective)
            if val > self.best_val:
                self.best_epoch, self.best_val, self.best_state = self.epoch, val, self._copy()
        line = {"epoch": self.epoch, "loss": loss, "lr": lr, "train": train, "val": val}
        line["seconds"] = time.perf_counter() - started
        self.history.append(line)
        return line

    def _pass(self) -> tuple[float, float]:
        """One pass over the training split, in an order of its own; mean loss and score."""
        self.model.train()
        split, size = self.splits["train"], self.config.batch_size
        order = torch.randperm(len(split), generator=self.generator, device=self.generator.device)
        losses, scores = [], []
        for step in range(self.steps):
            rows = order[step * size : (step + 1) * size]
            weights, targets = split.weights[rows], self.objective.targets(split.labels[rows])
            if self.transform is not None:
                weights, targets = self.transform(weights, targets, generator=self.generator)
            output = output_of(self.model, weights, self.objective)
            loss = self.objective.loss(output, targets, weights)
            output = output.detach() if isinstance(output, Tensor) else output.replace(output.flat.detach())
            with torch.no_grad():
                scores.append(self.objective.score(output, split.labels[rows], weights).mean())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.config.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimizer.step()
            self.scheduler.step()
            if self.mean:
                self._average(self.epoch * self.steps + step)
            losses.append(loss.detach())
        mean = torch.stack(losses).mean().item()
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"expected a finite loss, got {mean} in epoch {self.epoch + 1}; lower lr or clip, "
                "or look for networks that are not finite with `weightspace verify`"
            )
        return mean, torch.stack(scores).mean().item()

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "best": (self.best_epoch, self.best_val),
            "best_state": self.best_state,
            "mean": self.mean,
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"].cpu())
        self.epoch, (self.best_epoch, self.best_val) = state["epoch"], state["best"]
        self.best_state, self.history = state["best_state"], state["history"]
        if self.mean:
            self.mean = [value.to(self.device) for value in state["mean"]]
