"""The suites of the package, as literals: what is added to the registries changes none of them."""

from __future__ import annotations

from typing import Any

from weightspace.bench._evaluations import AveragedCopies
from weightspace.bench._sizes import OURS, RELEASED, SMALL, Size
from weightspace.bench._studies import STUDIES
from weightspace.bench._suite import Entry, Suite
from weightspace.training import TrainConfig
from weightspace.transforms import Affine, Flip, MixUp, RandomApply, Transform

MOVED = ("small-affine",)  # small movements of the inputs suit every model, because they keep what a class is
PERMUTED = ("permute", "small-affine")


def _entry(size: Size, **fields: Any) -> Entry:
    return Entry(*size, **fields)


def _dwsnet_and_mlp() -> dict[str, Entry]:
    """The two models that most suites compare: one equivariant to permutations, one without any symmetry."""
    return {"dwsnet": _entry(SMALL["dwsnet"], train={"lr": 4e-3}), "mlp": _entry(SMALL["mlp"], train={"lr": 1e-3})}


def copies(shift: float) -> tuple[Transform, ...]:
    """Return the mirror image, and a network and its mirror image moved by ``shift`` to each side.

    The second coordinate runs along an image's rows, so that its sign mirrors left and right.
    """
    mirrored = Affine(((1, 0), (0, -1)))
    sides = ((shift, 0.0), (-shift, 0.0), (0.0, shift), (0.0, -shift))
    return (mirrored, *(Affine(((1, 0), (0, sign)), side) for sign in (1, -1) for side in sides))


BOTH_WAYS = {"mirrored": AveragedCopies((Flip(1.0, axes=(1,)),))}
TEN_WAYS = {**BOTH_WAYS, "ten-copies": AveragedCopies(copies(0.07))}  # an image spans [-1, 1]
WHOLE = ("flip+small-affine+label-smoothing",)

SUITES: dict[str, Suite] = {
    "demo": Suite(
        "demo",
        {"dwsnet": _entry(SMALL["dwsnet"], train={"lr": 4e-3})},
        ("none", "noise", "rotate", "translate", "sign", "mixup-permutation"),
        TrainConfig(epochs=24, batch_size=64),
    ),
    "fashion-mnist": Suite(
        "fashion-mnist",
        _dwsnet_and_mlp(),
        (
            "none",
            "rotate",
            "translate",
            "scale",
            "shear",
            "flip",
            "noise",
            "dropout",
            "quantile",
            "label-smoothing",
            "permute",
            "sign",
            "phase",
            "positive-scale",
            "mixup",
            "mixup-weights-only",
            "mixup-random",
            "mixup-permutation",
            "mixup-per-layer",
            "mixup-self",
        ),
        TrainConfig(epochs=36, batch_size=64),
        leaders=5,
        leader_seeds=(1, 2),
    ),
    "fashion-mnist-short": Suite(
        "fashion-mnist-short",
        {"dwsnet": _entry(SMALL["dwsnet"], train={"lr": 4e-3})},
        ("none",),
        TrainConfig(epochs=20, batch_size=64),
        seeds=(0, 1, 2),
    ),
    "mixup": Suite(
        "mixup",
        _dwsnet_and_mlp(),
        {
            "none": None,
            "mixup": "mixup",
            "mixup-random": "mixup-random",
            "mixup-permutation": "mixup-permutation",
            "mixup-signed": "mixup-signed",
            "mixup-full": "mixup-full",
            "mixup-full-ends": MixUp("full", alpha=0.2),  # the shares lie near 0 and 1
            "mixup-full-half": RandomApply(MixUp("full"), 0.5),
        },
        TrainConfig(epochs=24, batch_size=64),
        seeds=(0, 1, 2),
    ),
    "mixup-anchored": Suite(
        "mixup-anchored",
        _dwsnet_and_mlp(),
        ("none", "mixup"),
        TrainConfig(epochs=24, batch_size=64),
        seeds=(0, 1, 2),
    ),
    "models": Suite(
        "models",
        {
            "statistics": _entry(SMALL["statistics"], augmentations=MOVED),
            "mlp": _entry(SMALL["mlp"], train={"lr": 1e-3}, augmentations=PERMUTED),
            "inr2vec": _entry(SMALL["inr2vec"], augmentations=PERMUTED),
            "weight-tokens": _entry(SMALL["weight-tokens"], augmentations=PERMUTED),
            "dwsnet": _entry(SMALL["dwsnet"], train={"lr": 4e-3}, augmentations=MOVED),
            "nfn-np": _entry(SMALL["nfn-np"], augmentations=MOVED),
            "nfn-hnp": _entry(SMALL["nfn-hnp"], augmentations=MOVED),
            "nft": _entry(SMALL["nft"], augmentations=MOVED),
            "ng-gnn": _entry(SMALL["ng-gnn"], augmentations=MOVED),
            "ng-t": _entry(SMALL["ng-t"], augmentations=MOVED),
            "gmn": _entry(SMALL["gmn"], augmentations=MOVED),
            "scale-gmn": _entry(SMALL["scale-gmn"], augmentations=MOVED),
            "typed-messages": _entry(SMALL["typed-messages"], augmentations=MOVED),
            "forward-messages": _entry(SMALL["forward-messages"], augmentations=MOVED),
            "ng-gnn-probes": _entry(SMALL["ng-gnn-probes"], augmentations=MOVED),
            "probe-net": _entry(SMALL["probe-net"], augmentations=MOVED),
            "probe-grid-net": _entry(SMALL["probe-grid-net"], augmentations=MOVED),
            "probe-gen": _entry(SMALL["probe-gen"], augmentations=MOVED),
            "render-cnn": _entry(SMALL["render-cnn"], augmentations=MOVED),
        },
        ("none",),
        TrainConfig(epochs=6, batch_size=64),
        leaders=2,
        leader_seeds=(1, 2),
    ),
    # The recipes behind the best figures, each with its own schedule; they were chosen on validation splits.
    "ours": Suite(
        "ours",
        {
            "forward-messages": _entry(
                OURS["forward-messages"],
                train={"epochs": 30, "ema": 0.998},
                augmentations=WHOLE,
                seeds=(1, 2),
                evaluations=BOTH_WAYS,
                ensemble=True,
            ),
            "forward-messages-no-ema": _entry(
                OURS["forward-messages"],
                train={"epochs": 30},
                augmentations=WHOLE,
                evaluations=BOTH_WAYS,
            ),
            "typed-messages": _entry(RELEASED["typed-messages 64 x 2"], train={"epochs": 24}, augmentations=MOVED),
            "dwsnet": _entry(RELEASED["dwsnet 32 x 4"], train={"epochs": 15}, augmentations=("none",)),
            "probe-net": _entry(RELEASED["probe-net 256 points"], train={"epochs": 24}, augmentations=MOVED),
            "probe-grid-net": _entry(
                RELEASED["probe-grid-net 14 x 14"], train={"epochs": 10}, augmentations=MOVED, seeds=(1, 2)
            ),
            "query-grid": _entry(
                OURS["query-grid"],
                train={"epochs": 16, "ema": 0.998},
                augmentations=WHOLE,
                seeds=(1, 2),
                evaluations=TEN_WAYS,
                ensemble=True,
            ),
            "render-cnn": _entry(
                OURS["render-cnn"],
                train={"epochs": 20},
                augmentations=WHOLE,
                evaluations=BOTH_WAYS,
            ),
            "probe-gen": _entry(
                RELEASED["probe-gen 128 probes"], train={"epochs": 30, "lr": 1e-3}, augmentations=("none",)
            ),
        },
        (),
        TrainConfig(epochs=30, batch_size=64, lr=2e-3),
    ),
    **STUDIES,
}
