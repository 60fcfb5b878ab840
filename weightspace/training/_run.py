"""The state of a training run, and one epoch of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from weightspace._networks import Networks
from weightspace._random import seeded
from weightspace._weights import check_finite
from weightspace.training._config import TrainConfig, schedule
from weightspace.training._objective import Objective
from weightspace.transforms import Transform
from weightspace.zoo import Zoo

EVAL_BATCH = 1024
EVAL_SEED = 0
"""Seed of the random choices that some objectives make in evaluation: the same in every epoch."""


@dataclass(frozen=True, eq=False)
class Part:
    """Networks of a zoo to train on or to evaluate: a split, or some rows of one.

    Args:
        zoo: the zoo.
        split: name of the split.
        rows: numbers of the networks; ``None`` for all.
        device: where the batches shall be.
        resident_bytes: the largest size of a split's weights to hold in memory.
    """

    zoo: Zoo
    split: str
    rows: Tensor | None
    device: torch.device
    resident_bytes: int

    def __len__(self) -> int:
        return self.zoo.count(self.split) if self.rows is None else len(self.rows)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Networks]:
        """Iterate over one epoch: shuffled and without a last batch that is not full, given a generator."""
        return self.zoo.batches(
            self.split,
            size,
            generator=generator,
            shuffle=generator is not None,
            drop_last=generator is not None and len(self) >= size,
            rows=self.rows,
            device=self.device,
            resident_bytes=self.resident_bytes,
        )

    def check(self, objective: Objective, name: str) -> None:
        """Refuse networks that are not finite, and labels without a target, before the training instead of in it."""
        for batch in self.batches(EVAL_BATCH):
            check_finite(f"split {name!r}", batch.weights)
            objective.targets(batch)


@torch.no_grad()
def scores_of_each(model: nn.Module, part: Part, objective: Objective) -> Tensor:
    """Compute the score of every network of a part of a zoo, ``[network]``, in evaluation mode."""
    model.eval()
    generator = torch.Generator(part.device).manual_seed(EVAL_SEED)
    scores = [
        objective(model, batch, objective.targets(batch), generator=generator)[1] for batch in part.batches(EVAL_BATCH)
    ]
    return torch.cat(scores)


def score(model: nn.Module, part: Part, objective: Objective) -> float:
    """Compute the mean score of a model on a part of a zoo, in evaluation mode."""
    return scores_of_each(model, part, objective).mean().item()


class Run:
    """Everything that changes from epoch to epoch, and can be saved and restored."""

    def __init__(
        self,
        model: nn.Module,
        parts: Mapping[str, Part],
        objective: Objective,
        transform: Transform | None,
        config: TrainConfig,
    ) -> None:
        self.model, self.parts, self.objective = model, parts, objective
        self.transform, self.config, self.device = transform, config, parts["train"].device
        self.generator = torch.Generator(device=self.device).manual_seed(config.seed)
        self.steps = config.epoch_steps or max(1, len(parts["train"]) // config.batch_size)
        total = self.steps * config.epochs
        fused = self.device.type in ("cpu", "cuda")  # one pass over all parameters
        settings = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": fused}
        self.optimizer = torch.optim.AdamW(model.parameters(), **settings)
        self._factor = lambda step: schedule(step, total, config.warmup)
        self.scheduler = LambdaLR(self.optimizer, self._factor)
        self.epoch, self.best_epoch, self.best_val = 0, 0, -math.inf
        self.history: list[dict[str, float]] = []
        # The exponential moving average is of parameters and running statistics; these are the model's own tensors.
        state = model.state_dict().values() if config.ema else ()
        self.tracked = [value.detach() for value in state if value.is_floating_point()]
        self.average = [value.clone() for value in self.tracked]
        self.best_state = self._copy()

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        decay = min(self.config.ema, (1 + step) / (10 + step))
        for mean, value in zip(self.average, self.tracked, strict=True):
            mean.lerp_(value, 1 - decay)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Put the moving average into the model for a while, where there is one."""
        own = [value.clone() for value in self.tracked]
        for value, mean in zip(self.tracked, self.average, strict=True):
            value.copy_(mean)
        try:
            yield
        finally:
            for value, before in zip(self.tracked, own, strict=True):
                value.copy_(before)

    def one_epoch(self) -> dict[str, float]:
        """Train for one epoch and validate; returns the epoch's line of the history."""
        started, lr = time.perf_counter(), self.optimizer.param_groups[0]["lr"]
        with seeded(self.config.seed + 1_000_003 * (self.epoch + 1), self.device):  # dropout, the same after a resume
            loss, train = self._train()
        self.epoch += 1
        with self._averaged():
            val = score(self.model, self.parts["val"], self.objective)
            if val > self.best_val:
                self.best_epoch, self.best_val, self.best_state = self.epoch, val, self._copy()
        line = {"epoch": self.epoch, "loss": loss, "lr": lr, "train": train, "val": val}
        line["seconds"] = time.perf_counter() - started
        self.history.append(line)
        return line

    def _train(self) -> tuple[float, float]:
        """Train for the steps of an epoch; returns the mean loss and score."""
        self.model.train()
        losses, scores = [], []
        for step, batch in enumerate(self._batches()):
            weights, targets = batch.weights, self.objective.targets(batch)
            if self.transform is not None:
                weights, targets = self.transform(weights, targets, generator=self.generator)
            loss, of_each = self.objective(
                self.model, batch.replace(weights=weights), targets, generator=self.generator
            )
            self._step(loss)
            if self.average:
                self._update_average(self.epoch * self.steps + step)
            losses.append(loss.detach())
            scores.append(of_each.mean())
        mean = torch.stack(losses).mean().item()
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"expected a finite loss, got {mean} in epoch {self.epoch + 1}; lower lr or clip, "
                "or look for networks that are not finite with `weightspace verify`"
            )
        return mean, torch.stack(scores).mean().item()

    def _batches(self) -> Iterator[Networks]:
        """Walk through the training networks: once, or again and again until the steps of an epoch are done."""
        passes = repeat(self.parts["train"]) if self.config.epoch_steps else [self.parts["train"]]
        each = (part.batches(self.config.batch_size, self.generator) for part in passes)
        return islice(chain.from_iterable(each), self.config.epoch_steps)

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        self.scheduler.step()

    def state(self) -> dict[str, Any]:
        """Return all that a run needs to go on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "best": (self.best_epoch, self.best_val),
            "best_state": self.best_state,
            "average": self.average,
            "history": self.history,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        for group, lr in zip(self.optimizer.param_groups, self.scheduler.base_lrs, strict=True):
            group["lr"] = lr * self._factor(self.scheduler.last_epoch)  # another one if the run was made longer
        self.generator.set_state(state["generator"].cpu())
        self.epoch, (self.best_epoch, self.best_val) = state["epoch"], state["best"]
        self.best_state, self.history = state["best_state"], state["history"]
        if self.average:
            self.average = [value.to(self.device) for value in state["average"]]
