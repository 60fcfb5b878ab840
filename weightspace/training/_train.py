"""The one training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from weightspace._split import split_by_source
from weightspace.models import Model, Normalize
from weightspace.training._config import TrainConfig
from weightspace.training._objectives import Classification, Objective
from weightspace.training._run import Run, Split, score
from weightspace.training._run_folder import Keeper
from weightspace.transforms import Transform
from weightspace.zoo import Zoo

# Not a seed that a test split was drawn with: the same hash would hold out those same sources, which are gone already.
VAL_SEED = 0x76616C


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
        ValueError: for a zoo without labels where they are to be learned, a transform that does not fit the spec, an
            objective about another model, or a ``run_dir`` of another run.
        FloatingPointError: if the loss stops being finite.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> from weightspace.zoo import write_zoo
        >>> spec, labels = ws.siren(2, 4, 1), torch.arange(40) % 2
        >>> w = ws.Weights(labels[:, None] + torch.zeros(40, spec.num_params), spec)
        >>> zoo = write_zoo(tempfile.mkdtemp(), {"train": (w, labels, None, None, None)})
        >>> result = train(ws.models.MLP(spec, out_features=2, hidden=8), zoo, epochs=4, batch_size=8, lr=0.1)
        >>> result.val, result.test
        (1.0, None)
    """
    config = replace(config or TrainConfig(), **options)
    device = torch.device(device)
    if transform is not None:
        transform.check(zoo.spec)
    objective = objective or Classification(num_classes(zoo))
    if objective.model is not None and objective.model is not model:
        raise ValueError("objective: expected one about the model that is trained, got another model's")
    splits = _load(zoo, config, device)
    for split in splits.values():
        objective.targets(split.labels)  # a label without a target is found before the training, not after it
    model.to(device)
    for module in model.modules():  # of an ensemble every member has its own
        if isinstance(module, Normalize):
            module.fit(splits["train"].weights)
    run = Run(model, splits, objective, transform, config, device)
    keep = None if run_dir is None else Keeper(Path(run_dir), config, zoo, transform, model, objective)
    if keep is not None:
        keep.load(run)
    try:
        while run.epoch < config.epochs:
            line = run.one_epoch()
            if keep is not None:
                keep.save(run, line)
            if on_epoch is not None:
                on_epoch(line)
    finally:
        if keep is not None:
            keep.close()
    model.load_state_dict(run.best_state)
    model.eval()
    test = score(model, splits["test"], objective) if "test" in splits else None
    result = TrainResult(run.best_epoch, run.best_val, test, run.history, sum(line["seconds"] for line in run.history))
    if keep is not None:
        keep.finish(asdict(result), model)
    return result


def num_classes(zoo: Zoo) -> int:
    """How many classes a zoo has: as many as it names, or its largest label and one.

    Raises:
        ValueError: if a network has no label.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> from weightspace.zoo import write_zoo
        >>> w = ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1))
        >>> num_classes(write_zoo(tempfile.mkdtemp(), {"train": (w, [0, 2, 1], None, None, None)}))
        3
    """
    labels = torch.cat([zoo.labels(split) for split in zoo.splits])
    if bool((labels < 0).any()):
        raise ValueError(
            f"expected a zoo with labels, got {int((labels < 0).sum())} of {len(labels)} networks without (label -1); "
            "fit labelled signals"
        )
    return max(len(zoo.classes), 1 + int(labels.max()))


def _load(zoo: Zoo, config: TrainConfig, device: torch.device) -> dict[str, Split]:
    """The splits on the device; validation held out by source where the zoo has none."""
    if "train" not in zoo.splits:
        raise ValueError(f"expected a zoo with a 'train' split, got {list(zoo.splits)}; fit or import one")
    splits = {name: Split(zoo.weights(name).to(device), zoo.labels(name).to(device)) for name in zoo.splits}
    if "val" not in splits:
        rest, held = split_by_source(zoo.sources("train").numpy(), config.val_fraction, seed=VAL_SEED)
        whole = splits["train"]
        for name, index in (("train", rest), ("val", held)):
            rows = torch.as_tensor(index, device=device)
            splits[name] = Split(whole.weights[rows], whole.labels[rows])
    for name, split in splits.items():
        if bad := int((~torch.isfinite(split.weights.flat).all(1)).sum()):
            raise ValueError(
                f"expected finite weights, got {bad} networks with NaN or infinity in {name!r}; leave them out"
            )
    for name in ("train", "val"):
        if not len(splits[name]):
            raise ValueError(
                f"expected networks in the {name!r} split, got none of {zoo.count('train')}; "
                f"change val_fraction ({config.val_fraction}), or fit more signals"
            )
    return splits
