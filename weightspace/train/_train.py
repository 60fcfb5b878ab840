"""The one training loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from weightspace._weights import Weights
from weightspace.models import Model
from weightspace.signals import split_by_source
from weightspace.train._config import TrainConfig, schedule
from weightspace.train._objective import Classification, Objective
from weightspace.transforms import Transform
from weightspace.zoo import Zoo

EVAL_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Split:
    """Networks and their labels on the device that trains."""

    weights: Weights
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class TrainResult:
    """What a run was worth.

    Args:
        best_epoch: epoch (from 1) with the best validation score.
        val: validation score at that epoch.
        test: test score of that epoch's weights, read once at the end; None without a test split.
        history: per epoch: epoch, loss, lr, train (on the transformed batches), val, seconds.
        seconds: training and validation time.
    """

    best_epoch: int
    val: float
    test: float | None
    history: list[dict[str, float]]
    seconds: float


def train(
    model: Model,
    zoo: Zoo,
    *,
    transform: Transform | None = None,
    objective: Objective | None = None,
    config: TrainConfig | None = None,
    device: str | torch.device = "cpu",
    run_dir: str | Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    **options: Any,
) -> TrainResult:
    """Train a model on the networks of a zoo; the model ends with the weights of its best validation epoch.

    AdamW, linear warm-up and cosine, gradient clipping. Transforms run on the whole batch, on the device, and may mix
    the labels. The epoch is chosen on the validation split, the test split is read once.

    Args:
        model: built for the zoo's spec; its normalisation is fitted to the training split here.
        zoo: with a "train" split; "val" is held out by source where missing, "test" is optional.
        transform: augmentation of the training batches.
        objective: classification over the zoo's labels where None.
        config: hyper-parameters; ``options`` replace single fields of it.
        device: where to train.
        run_dir: where to keep ``last.pt`` (a run started again goes on from it), ``best.safetensors``, ``result.json``
            and TensorBoard logs; nothing is written where None.
        on_epoch: called with each epoch's line of the history.
        options: fields of :class:`TrainConfig`.

    Raises:
        ValueError: for a zoo without labels, a transform that does not fit the spec, or a ``run_dir`` of another run.
        FloatingPointError: if the loss stops being finite.

    Example:
        See ``examples/train_on_a_zoo.py``.
    """
    config = replace(config or TrainConfig(), **options)
    device = torch.device(device)
    splits = _load(zoo, config, device)
    objective = objective or Classification(_num_classes(zoo, splits))
    if transform is not None:
        transform.check(zoo.spec)
    model.to(device)
    model.normalize.fit(splits["train"].weights)
    run = _Run(model, splits, objective, transform, config, device)
    keep = _Keeper(Path(run_dir), config, zoo, transform, model) if run_dir is not None else None
    if keep is not None:
        keep.load(run)
    while run.epoch < config.epochs:
        line = run.one_epoch()
        if keep is not None:
            keep.save(run, line)
        if on_epoch is not None:
            on_epoch(line)
    model.load_state_dict(run.best_state)
    test = score(model, splits["test"], objective) if "test" in splits else None
    result = TrainResult(run.best_epoch, run.best_val, test, run.history, sum(line["seconds"] for line in run.history))
    if keep is not None:
        keep.finish(result, model)
    return result


@torch.no_grad()
def score(model: Model, split: Split, objective: Objective) -> float:
    """Mean score of a model on a split."""
    model.eval()
    parts = []
    for start in range(0, len(split), EVAL_BATCH):
        rows = slice(start, start + EVAL_BATCH)
        output = model(split.weights[rows])
        assert isinstance(output, Tensor)
        parts.append(objective.score(output, split.labels[rows]))
    return torch.cat(parts).mean().item()


class _Run:
    """The state of a training run: what changes from epoch to epoch."""

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
        self.transform, self.config = transform, config
        self.generator = torch.Generator(device=device).manual_seed(config.seed)
        self.steps = max(1, len(splits["train"]) // config.batch_size)
        total = self.steps * config.epochs
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.scheduler = LambdaLR(self.optimizer, lambda step: schedule(step, total, config.warmup))
        self.epoch, self.best_epoch, self.best_val = 0, 0, -float("inf")
        self.history: list[dict[str, float]] = []
        self.best_state = self._copy()

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def one_epoch(self) -> dict[str, float]:
        started, lr = time.perf_counter(), self.scheduler.get_last_lr()[0]
        loss, train = self._pass()
        val = score(self.model, self.splits["val"], self.objective)
        self.epoch += 1
        if val > self.best_val:
            self.best_epoch, self.best_val, self.best_state = self.epoch, val, self._copy()
        line = {"epoch": self.epoch, "loss": loss, "lr": lr, "train": train, "val": val}
        line["seconds"] = time.perf_counter() - started
        self.history.append(line)
        return line

    def _pass(self) -> tuple[float, float]:
        """One pass over the training split, in an order of its own."""
        self.model.train()
        split, size = self.splits["train"], self.config.batch_size
        order = torch.randperm(len(split), generator=self.generator, device=self.generator.device)
        losses, scores = [], []
        for step in range(self.steps):
            rows = order[step * size : (step + 1) * size]
            weights, targets = split.weights[rows], self.objective.targets(split.labels[rows])
            if self.transform is not None:
                weights, targets = self.transform(weights, targets, generator=self.generator)
            output = self.model(weights)
            loss = self.objective.loss(output, targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.config.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.detach())
            scores.append(self.objective.score(output.detach(), split.labels[rows]).mean())
        mean = torch.stack(losses).mean().item()
        if not torch.isfinite(torch.tensor(mean)):
            raise FloatingPointError(f"the loss is {mean} after epoch {self.epoch + 1}; lower lr or clip")
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
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"].cpu())
        self.epoch, (self.best_epoch, self.best_val) = state["epoch"], state["best"]
        self.best_state, self.history = state["best_state"], state["history"]


class _Keeper:
    """What a run leaves on disk."""

    def __init__(self, path: Path, config: TrainConfig, zoo: Zoo, transform: Transform | None, model: Model) -> None:
        self.path, self.last = path, path / "last.pt"
        self.key = {
            "config": asdict(config),
            "transform": repr(transform),
            "model": type(model).__name__,
            "parameters": model.num_parameters,
            "spec": zoo.spec.to_json(),
        }
        path.mkdir(parents=True, exist_ok=True)
        self.logs: Any = None

    def load(self, run: _Run) -> None:
        """Go on where an earlier run of the same configuration stopped."""
        if self.last.exists():
            state = torch.load(self.last, weights_only=True, map_location="cpu")
            different = [k for k in self.key if state["key"].get(k) != self.key[k]]
            if different:
                raise ValueError(
                    f"{self.path} holds another run: {different[0]} was {state['key'].get(different[0])}, "
                    f"now {self.key[different[0]]}; use another folder or remove it"
                )
            run.restore(state)
        from torch.utils.tensorboard.writer import SummaryWriter

        self.logs = SummaryWriter(str(self.path / "logs"), purge_step=run.epoch + 1)

    def save(self, run: _Run, line: dict[str, float]) -> None:
        temporary = self.last.with_suffix(".tmp")
        torch.save({"key": self.key, **run.state()}, temporary)
        temporary.replace(self.last)
        for name in ("loss", "lr", "train", "val"):
            self.logs.add_scalar(name, line[name], int(line["epoch"]))

    def finish(self, result: TrainResult, model: Model) -> None:
        self.logs.close()
        save_file({n: v.contiguous() for n, v in model.state_dict().items()}, self.path / "best.safetensors")
        (self.path / "result.json").write_text(json.dumps({**self.key, **asdict(result)}, indent=1))


def _load(zoo: Zoo, config: TrainConfig, device: torch.device) -> dict[str, Split]:
    """The splits on the device; validation held out by source where the zoo has none."""
    if "train" not in zoo.splits:
        raise ValueError(f"expected a zoo with a 'train' split, got {list(zoo.splits)}")
    splits = {name: Split(zoo.weights(name).to(device), zoo.labels(name).to(device)) for name in zoo.splits}
    if "val" not in splits:
        rest, held = split_by_source(zoo.sources("train").numpy(), config.val_fraction, seed=0)
        whole = splits["train"]
        for name, rows in (("train", torch.as_tensor(rows)), ("val", torch.as_tensor(held))):
            splits[name] = Split(whole.weights[rows.to(device)], whole.labels[rows.to(device)])
    for name in ("train", "val"):
        if not len(splits[name]):
            raise ValueError(f"expected networks in the {name!r} split, got none")
    return splits


def _num_classes(zoo: Zoo, splits: dict[str, Split]) -> int:
    low = min(int(split.labels.min()) for split in splits.values() if len(split))
    if low < 0:
        raise ValueError("expected a zoo with labels, got unlabelled networks (label -1)")
    return max(len(zoo.classes or ()), 1 + max(int(split.labels.max()) for split in splits.values() if len(split)))
