"""The suites of the study of augmentation: the protocol of its papers, and the questions that it leaves open."""

from __future__ import annotations

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
}
