"""The training loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from weightspace._checks import check_keywords
from weightspace._progress import bar
from weightspace._split import split_by_source
from weightspace.models import Normalize, WeightModel
from weightspace.training._config import TrainConfig
from weightspace.training._labelled import Classification
from weightspace.training._objective import Objective
from weightspace.training._objectives import objective_for
from weightspace.training._run import EVAL_BATCH, Part, Run, score
from weightspace.training._run_folder import RunFolder
from weightspace.transforms import Transform, augmentation
from weightspace.transforms._registry import for_pictures, shears
from weightspace.zoo import Zoo
from weightspace.zoo._summary import image_size
from weightspace.zoo._zoo import RESIDENT_BYTES

# Not a seed that a test split was drawn with: the same hash would hold out those same sources, which are gone already.
VAL_SEED = 0x76616C
SHARE_SEED = 0x736872
TRAIN_ARGUMENTS = ("transform", "objective", "config", "device", "run_dir", "on_epoch", "resident_bytes", "progress")
SIGNAL_FACTS = ("data", "licence", "citation", "height", "width")
"""Entries of a zoo's provenance that a model keeps."""


@dataclass(frozen=True)
class TrainResult:
    """The result of a training run.

    Args:
        best_epoch: epoch (from 1) with the best validation score.
        val: validation score at that epoch.
        test: test score of that epoch's weights, read once at the end; ``None`` without a test split.
        history: per epoch: epoch, loss, lr, train (score on the transformed batches), val, seconds.
        seconds: training and validation time.
    """

    best_epoch: int
    val: float
    test: float | None
    history: list[dict[str, float]]
    seconds: float

    def __repr__(self) -> str:
        test = "" if self.test is None else f", test={self.test:.4f}"
        return (
            f"TrainResult(best_epoch={self.best_epoch} of {len(self.history)}, val={self.val:.4f}{test}, "
            f"{self.seconds:.1f} s)"
        )


def train(
    model: nn.Module,
    zoo: Zoo,
    *,
    transform: Transform | str | None = None,
    objective: Objective | str | None = None,
    config: TrainConfig | None = None,
    device: str | torch.device = "cpu",
    run_dir: str | Path | None = None,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    resident_bytes: int = RESIDENT_BYTES,
    progress: bool | None = None,
    **options: Any,
) -> TrainResult:
    """Train a model on the networks of a zoo; the model ends with the weights of its best validation epoch.

    AdamW, linear warm-up and cosine, gradient clipping. Batches are those of :meth:`weightspace.Zoo.batches`.
    Transforms run on the whole batch, on the device, and may mix the labels. The epoch is chosen on the validation
    split, the test split is read once.

    Args:
        model: built for the zoo's spec; its normalisation is fitted to the training split here.
        zoo: with a "train" split; "val" is held out by source where missing, "test" is optional.
        transform: augmentation of the training batches, or the name of one, such as ``"rotate+noise"``. A named
            one keeps distances in pictures whose sides differ, see :class:`weightspace.transforms.Rotate`.
        objective: the objective, or the name of one: ``"classification"`` (over the zoo's labels, the default),
            ``"regression"`` (of real-valued labels), or an import path.
        config: hyper-parameters; ``options`` replace single fields of it.
        device: where to train.
        run_dir: folder for checkpoints (a run started again goes on from them), the best model, which
            :func:`weightspace.models.load_model` opens, the result and TensorBoard logs; nothing is written where
            ``None``. A finished run is extended by more ``epochs``: the step size is then that of the longer schedule.
        on_epoch: called with each epoch's line of the history.
        resident_bytes: a split whose weights are at most this large is held in memory (or on the device); a larger one
            is read from its files, batch by batch, with the same result.
        progress: whether to show a bar; by default in notebooks alone.
        options: fields of :class:`TrainConfig`.

    Raises:
        TypeError: for arguments of another type.
        ValueError: for a zoo without labels where they are to be learned, a transform that does not fit the spec, or a
            ``run_dir`` of another run.
        FloatingPointError: if the loss stops being finite.

    Warns:
        UserWarning: for a transform that rotates without the size of pictures whose sides differ, which shears them.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> spec, labels = ws.siren(2, 4, 1), torch.arange(40) % 2
        >>> w = ws.Weights(labels[:, None] + torch.zeros(40, spec.num_params), spec)
        >>> zoo = ws.zoo.write_zoo(tempfile.mkdtemp(), train=ws.Networks(w, labels))
        >>> model = ws.models.MLP(spec, out_features=2, hidden=8, seed=0)
        >>> result = ws.train(model, zoo, epochs=4, batch_size=8, lr=0.1)
        >>> result.val, result.test
        (1.0, None)
    """
    _check_types(model, zoo)
    check_keywords("ws.train", options, [*TRAIN_ARGUMENTS, *(field.name for field in fields(TrainConfig))])
    config = replace(config or TrainConfig(), **options)
    named, transform = transform, augmentation_for(transform, zoo)
    if transform is not None:
        transform.check(zoo.spec)
    if not isinstance(objective, Objective):
        objective = Classification.for_zoo(zoo) if objective is None else objective_for(objective, zoo)
    objective.check(model)
    parts = parts_of(zoo, config, torch.device(device), resident_bytes)
    for name, part in parts.items():
        part.check(objective, name)
    if isinstance(model, WeightModel):
        model.about = _about(zoo, named, objective)
    model.to(device)
    for module in model.modules():  # of an ensemble every member has its own
        if isinstance(module, Normalize):
            module.fit(batch.weights for batch in parts["train"].batches(EVAL_BATCH))
    run = Run(model, parts, objective, transform, config)
    folder = None if run_dir is None else RunFolder(Path(run_dir), config, zoo, transform, model, objective)
    if folder is not None:
        folder.load(run)
    with bar("train", progress) as shown:
        _walk(run, config.epochs, folder, on_epoch, shown)
    model.load_state_dict(run.best_state)
    model.eval()
    test = score(model, parts["test"], objective) if "test" in parts else None
    result = TrainResult(run.best_epoch, run.best_val, test, run.history, sum(line["seconds"] for line in run.history))
    if folder is not None:
        folder.finish(asdict(result), model)
    return result


def _walk(
    run: Run,
    epochs: int,
    folder: RunFolder | None,
    on_epoch: Callable[[dict[str, float]], None] | None,
    shown: Callable[[int, int, str], None] | None,
) -> None:
    """Train until the last epoch."""
    try:
        while run.epoch < epochs:
            line = run.one_epoch()
            if folder is not None:
                folder.save(run, line)
            if shown is not None:
                shown(run.epoch, epochs, f"loss {line['loss']:.3f}  validation {line['val']:.4g}")
            if on_epoch is not None:
                on_epoch(line)
    finally:
        if folder is not None:
            folder.close()


def _about(zoo: Zoo, transform: Transform | str | None, objective: Objective) -> dict[str, Any]:
    """Return the facts that a model keeps of the networks that it is trained on, and of the training."""
    return {
        "classes": list(zoo.classes),
        "recipe": zoo.recipe,
        "init_regime": zoo.init_regime,
        "signals": {name: value for name, value in zoo.provenance.items() if name in SIGNAL_FACTS},
        "transform": transform if isinstance(transform, str | None) else repr(transform),
        "objective": type(objective).__name__,
        "target": getattr(objective, "column", None),
    }


def augmentation_for(transform: Transform | str | None, zoo: Zoo) -> Transform | None:
    """Return the augmentation; one that is named by a text keeps distances in the pictures of the zoo.

    Warns:
        UserWarning: for rotations that would shear the pictures.
    """
    size = image_size(zoo.provenance)
    if size is None or len(size) != zoo.spec.in_features or len({*size}) == 1:
        return augmentation(transform) if isinstance(transform, str) else transform
    if isinstance(transform, str):
        return for_pictures(augmentation(transform), size)
    if transform is not None and shears(transform):
        warnings.warn(
            f"transform: expected rotations of pictures of {size[0]}x{size[1]}, got {transform!r:.200}, which shears "
            f"them; pass Rotate(degrees, size={size})",
            UserWarning,
            stacklevel=3,
        )
    return transform


def _check_types(model: nn.Module, zoo: Zoo) -> None:
    if not isinstance(model, nn.Module):
        hint = "; the order is ws.train(model, zoo)" if isinstance(model, Zoo) else ""
        raise TypeError(f"model: expected a model on weights, got {type(model).__name__}{hint}")
    if not isinstance(zoo, Zoo):
        raise TypeError(
            f"zoo: expected a Zoo, got {type(zoo).__name__}; open one with ws.Zoo.open(path), or write networks that "
            "are in memory with ws.zoo.write_zoo(path, train=networks)"
        )


def parts_of(zoo: Zoo, config: TrainConfig, device: torch.device, resident_bytes: int) -> dict[str, Part]:
    """Return the splits to train on; validation networks are held out by source where the zoo has none."""
    if "train" not in zoo.splits:
        raise ValueError(f"expected a zoo with a 'train' split, got {list(zoo.splits)}; fit or import one")
    parts = {name: Part(zoo, name, None, device, resident_bytes) for name in zoo.splits}
    if "val" not in parts:
        rest, held = split_by_source(zoo.sources("train").numpy(), config.val_fraction, seed=VAL_SEED)
        for name, index in (("train", rest), ("val", held)):
            parts[name] = replace(parts["train"], rows=torch.as_tensor(index))
    parts["train"] = _chosen(parts["train"], config)
    for name in ("train", "val"):
        if not len(parts[name]):
            raise ValueError(
                f"expected networks in the {name!r} split, got none of {zoo.count('train')}; "
                f"change val_fraction ({config.val_fraction}), share or views, or fit more signals"
            )
    return parts


def _chosen(part: Part, config: TrainConfig) -> Part:
    """Return the training networks of the share of sources and of the views that the configuration asks for."""
    if config.share is None and config.views is None:
        return part
    rows = torch.arange(len(part)) if part.rows is None else part.rows
    if config.share is not None:
        sources = part.zoo.sources(part.split)[rows]
        rows = rows[torch.as_tensor(split_by_source(sources.numpy(), config.share, seed=SHARE_SEED)[1])]
    if config.views is not None:
        views = part.zoo.views(part.split)
        if len(views) and config.views > int(views.max()) + 1:
            raise ValueError(
                f"views: expected at most the {int(views.max()) + 1} of the split {part.split!r}, got {config.views}; "
                "add views, or train on fewer"
            )
        rows = rows[views[rows] < config.views]
    return replace(part, rows=rows)
