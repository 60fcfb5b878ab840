"""The suites of the study of augmentation: the protocol of its papers, and the questions that it leaves open."""

from __future__ import annotations

from dataclasses import replace

from weightspace.bench._evaluations import UnseenViews
from weightspace.bench._suite import Entry, Suite
from weightspace.training import TrainConfig
from weightspace.transforms import (
    Compose,
    GaussianNoise,
    LabelSmoothing,
    MixUp,
    PhaseShift,
    QuantilePrune,
    Rotate,
    Scale,
    SelfMixUp,
    SignFlip,
    Transform,
    Translate,
    WeightDropout,
)

BUDGET = TrainConfig(epochs=200, batch_size=256, lr=5e-3, weight_decay=5e-4)
"""Of the papers, but for the loop: AdamW with warm-up and a cosine, where theirs keeps one step size."""

TRANSLATE, NOISE, NEGATE = Translate(0.25), GaussianNoise(0.32), SignFlip(0.5)
COMBINED: Transform = Compose([TRANSLATE, NOISE, NEGATE])

STRENGTHS: dict[str, str | Transform | None] = {
    "none": None,
    "translate": TRANSLATE,
    "rotate": Rotate(30.0),
    "scale": Scale(0.8, 1.2),
    "noise": NOISE,
    "dropout": WeightDropout(0.1),
    "quantile": QuantilePrune(0.1),
    "label-smoothing": LabelSmoothing(0.1),
    "negate": NEGATE,
    "phase": PhaseShift(4),
    "mixup": MixUp(),
    "mixup-weights-only": MixUp(labels="hard"),
    "mixup-random": MixUp("random"),
    "mixup-permutation": MixUp("permutation"),
    "mixup-full": MixUp("full"),
    "mixup-self": SelfMixUp(NOISE),
    "combined": COMBINED,
    "combined+mixup-permutation": Compose([COMBINED, MixUp("permutation")]),
    "combined+mixup-full": Compose([COMBINED, MixUp("full")]),
}
"""Every member of the taxonomy at the papers' strength, and what the library adds: alignment over the full group."""

SET_LAYERS = {"hidden": 16, "layers": 2, "attention": 8, "reduction": "max"}

AVERAGES = {"hidden": 16, "layers": 2}
WORTH: dict[str, str | Transform | None] = {
    name: STRENGTHS[name] for name in ("none", "negate", "combined", "combined+mixup-permutation")
}
EQUAL_STEPS = replace(BUDGET, epochs=40, epoch_steps=46)

STUDIES: dict[str, Suite] = {
    "augmentation": Suite(
        "augmentation",
        {"dwsnet-max": Entry("dwsnet", SET_LAYERS)},
        STRENGTHS,
        BUDGET,
        leaders=6,
        leader_seeds=(1, 2),
    ),
    # Does MixUp repair an overfitting that maxima bring?
    "pooling": Suite(
        "pooling",
        {
            f"{reduction}-{epochs}": Entry(
                "dwsnet", {"hidden": 16, "layers": 2, "reduction": reduction}, {"epochs": epochs}
            )
            for epochs in (40, 200)
            for reduction in ("mean", "max")
        },
        {
            "none": None,
            "mixup": MixUp(),
            "mixup-permutation": MixUp("permutation"),
            "mixup-full": MixUp("full"),
        },
        BUDGET,
        seeds=(0, 1, 2),
    ),
    # How many times more images, or more networks of an image, is augmentation worth? Equal steps everywhere.
    "scale": Suite(
        "scale",
        {f"share-{share:g}": Entry("dwsnet", AVERAGES, {"share": share}) for share in (0.01, 0.03, 0.1, 0.3, 1.0)},
        WORTH,
        EQUAL_STEPS,
        seeds=(0, 1, 2),
    ),
    "views": Suite(
        "views",
        {
            f"views-{views}": Entry("dwsnet", AVERAGES, {"views": views}, evaluations={"same": UnseenViews(views)})
            for views in (1, 2, 4, 10)
        },
        WORTH,
        EQUAL_STEPS,
        seeds=(0, 1, 2),
    ),
}
