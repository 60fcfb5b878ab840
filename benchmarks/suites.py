"""Suites of single experiments, named by their import paths.

    python -m weightspace bench benchmarks.suites:EDITING --zoo runs/zoo --out runs/editing

``EDITING``: a model turns weights into weights whose function is the edited picture of the given network. ``dilate`` is
the largest value of 3 x 3 pixels, ``contrast`` doubles the distance from gray. Scores are negative mean squared errors
over the pixels. The evaluation "unchanged" is the score of the networks as they are, near which editors begin.

``CONTRASTIVE``: a model learns, without labels, that a network and a moved copy of it (turned, shifted, resized,
mirrored) belong together; then a linear probe reads the classes. Networks are moved twice, once by the training loop
and from there once more. Scores are the share of networks that are nearest to their own copy among 1,024.

``RECONSTRUCTION``: an encoder and a decoder learn from the networks' weights and values, without labels; then a linear
probe reads the classes from the encoder's outputs. Scores are negative mean squared errors; the evaluation "mean-
picture" is that of the mean of the training networks' values.

``SELF_SUPERVISED``: the same objective with a projection behind the encoder, with copies of a network (signs, noise,
movements) or with other fits of its signal as second views; then the classes from the labels of 1, 10 and 100 % of the
training signals, by a linear probe and by fine-tuning. It needs a zoo of several views.

Entries whose names end in ``-untrained`` are controls: one epoch with steps of no size, in which the batch norms see
the networks and no parameter changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import weightspace as ws
from weightspace._random import seeded
from weightspace._split import split_by_source
from weightspace.bench import Entry, Suite
from weightspace.bench._sizes import OURS, SMALL
from weightspace.models import WeightModel
from weightspace.training import Contrastive, Editing, Reconstruction
from weightspace.training._train import SHARE_SEED
from weightspace.transforms import augmentation

SIDE = 28
UNTRAINED = {"epochs": 1, "lr": 1e-12}
VIEWS = "rotate+translate+scale+flip"
NEGATED = "sign+noise"


# --- editing


def dilate(values: Tensor) -> Tensor:
    """Replace every pixel by the largest value of the 3 x 3 pixels around it."""
    pictures = values.transpose(1, 2).unflatten(2, (SIDE, SIDE))
    return F.max_pool2d(pictures, 3, stride=1, padding=1).flatten(2).transpose(1, 2)


def contrast(values: Tensor) -> Tensor:
    """Double the distance of every pixel from gray."""
    return 0.5 + 2 * (values - 0.5)


class Contrast(Editing):
    """The objective of networks whose pictures have twice the contrast."""

    @classmethod
    def for_zoo(cls, zoo: ws.Zoo) -> Contrast:
        return cls(zoo.spec, ws.signals.grid(SIDE, SIDE), contrast)


class Dilate(Editing):
    """The objective of networks whose pictures are dilated."""

    @classmethod
    def for_zoo(cls, zoo: ws.Zoo) -> Dilate:
        return cls(zoo.spec, ws.signals.grid(SIDE, SIDE), dilate)


@dataclass(frozen=True)
class Unchanged:
    """An evaluation of the networks as they are: the score of a model that edits nothing."""

    edit: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, model: Any, zoo: ws.Zoo, device: str) -> Mapping[str, float]:
        coords, errors = ws.signals.grid(SIDE, SIDE), []
        for batch in zoo.batches("test", 500, shuffle=False):
            values = ws.evaluate(batch.weights, coords)
            errors.append((self.edit(values) - values).square().mean((1, 2)))
        return {"test": -torch.cat(errors).mean().item()}

    def __repr__(self) -> str:
        return f"Unchanged({self.edit.__name__})"


def editor(spec: ws.NetSpec, out_features: int, *, model: str, seed: int = 0, **options: Any) -> Any:
    """Build a model of weights to weights that begins near the networks as they are."""
    return ws.models.build(model, spec, out_features, head="editing", seed=seed, **options)


def _editor(name: str, layers: int, edit: Callable[[Tensor], Tensor]) -> Entry:
    """Return an entry; there is no head behind an editor, and some have a layer more than the small classifiers."""
    model, options = SMALL[name]
    return Entry(
        "benchmarks.suites:editor",
        {"model": model, **options, "layers": layers},
        outputs=1,
        objective=f"benchmarks.suites:{edit.__name__.capitalize()}",
        evaluations={"unchanged": Unchanged(edit)},
    )


EDITING = Suite(
    "editing",
    {
        "dwsnet-contrast": _editor("dwsnet", 3, contrast),
        "nfn-np-contrast": _editor("nfn-np", 3, contrast),
        "scale-gmn-contrast": _editor("scale-gmn", 2, contrast),
        "dwsnet-dilate": _editor("dwsnet", 3, dilate),
        "nfn-np-dilate": _editor("nfn-np", 3, dilate),
        "scale-gmn-dilate": _editor("scale-gmn", 2, dilate),
    },
    ("none",),
    ws.TrainConfig(epochs=5, batch_size=64, lr=2e-3),
)


# --- learning without labels


@dataclass(frozen=True)
class LinearProbe:
    """An evaluation by ridge regression from a model's outputs to the classes.

    The regression is fitted to the training split, and its strength is chosen on the validation split.
    """

    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    share: float = 1.0

    @torch.no_grad()
    def __call__(self, model: Any, zoo: ws.Zoo, device: str) -> Mapping[str, float]:
        if missing := {"val", "test"} - set(zoo.splits):
            raise ValueError(f"expected a zoo with a {min(missing)!r} split for the linear probe, got {zoo.splits}")
        model = model.to(device).eval()
        outputs = {
            split: torch.cat([model(batch.weights).double().cpu() for batch in zoo.batches(split, 500, shuffle=False)])
            for split in zoo.splits
        }
        mean, std = outputs["train"].mean(0), outputs["train"].std(0) + 1e-9
        outputs = {split: (value - mean) / std for split, value in outputs.items()}
        rows = torch.as_tensor(split_by_source(zoo.sources("train").numpy(), self.share, seed=SHARE_SEED)[1])
        x, classes = outputs["train"][rows], F.one_hot(zoo.labels("train")[rows], zoo.num_classes).double()
        gram, middle = x.T @ x / len(x), classes.mean(0)
        cross = x.T @ (classes - middle) / len(x)

        def accuracy(strength: float, split: str) -> float:
            weight = torch.linalg.solve(gram + strength * torch.eye(len(gram), dtype=gram.dtype), cross)
            return ((outputs[split] @ weight + middle).argmax(1) == zoo.labels(split)).double().mean().item()

        best = max(self.strengths, key=lambda strength: accuracy(strength, "val"))
        return {"strength": best, "val": accuracy(best, "val"), "test": accuracy(best, "test")}


@dataclass(frozen=True)
class MeanPicture:
    """An evaluation of the mean of the training networks' values: the score of a decoder that knows no network."""

    @torch.no_grad()
    def __call__(self, model: Any, zoo: ws.Zoo, device: str) -> Mapping[str, float]:
        coords = ws.signals.grid(SIDE, SIDE)
        mean = ws.evaluate(zoo["train"].weights[:1000], coords).mean(0)
        return {"test": -(ws.evaluate(zoo["test"].weights, coords) - mean).square().mean().item()}


PROBE = {"linear-probe": LinearProbe()}


def embedding(spec: ws.NetSpec, out_features: int, *, model: str, seed: int = 0, **options: Any) -> Any:
    """Build a model whose outputs have length one."""
    return ws.models.build(model, spec, out_features, head="embedding", seed=seed, **options)


def _contrastive(model: str, options: dict[str, Any], **train: Any) -> Entry:
    objective = Contrastive(augmentation(VIEWS), temperature=0.2)
    options = {"model": model, **options}
    return Entry("benchmarks.suites:embedding", options, train, outputs=128, objective=objective, evaluations=PROBE)


CONTRASTIVE = Suite(
    "contrastive",
    {
        "dwsnet": _contrastive(*SMALL["dwsnet"]),
        "dwsnet-untrained": _contrastive(*SMALL["dwsnet"], **UNTRAINED),
        "forward-messages": _contrastive(*OURS["forward-messages"]),
        "forward-messages-untrained": _contrastive(*OURS["forward-messages"], **UNTRAINED),
    },
    (VIEWS,),
    ws.TrainConfig(epochs=10, batch_size=64),
)


# --- learning without labels, measured by what few labels then suffice for


class Projected(WeightModel):
    """An encoder, and behind it a small network onto the unit sphere, for the contrastive objective alone."""

    def __init__(self, encoder: WeightModel, out_features: int = 64, *, seed: int = 0) -> None:
        super().__init__(
            encoder.spec, out_features, output="embedding", equivariance=encoder.equivariance, track=encoder.track
        )
        self.encoder, wide = encoder, encoder.out_features
        with seeded(seed):
            self.head = nn.Sequential(nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, out_features))

    @property
    def config(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "out_features": self.out_features}

    def forward(self, weights: ws.Weights) -> Tensor:
        return F.normalize(self.head(self.encoder(weights)), dim=-1)


class Headed(WeightModel):
    """An encoder with a linear layer behind it."""

    def __init__(self, encoder: WeightModel, out_features: int, *, seed: int = 0) -> None:
        super().__init__(
            encoder.spec, out_features, output="tensor", equivariance=encoder.equivariance, track=encoder.track
        )
        self.encoder = encoder
        with seeded(seed):
            self.head = nn.Linear(encoder.out_features, out_features)

    @property
    def config(self) -> dict[str, Any]:
        return {"encoder": self.encoder, "out_features": self.out_features}

    def forward(self, weights: ws.Weights) -> Tensor:
        return self.head(self.encoder(weights))


def projected(spec: ws.NetSpec, out_features: int, *, model: str, seed: int = 0, **options: Any) -> Projected:
    """Build an encoder with that many outputs, and a projection behind it."""
    return Projected(ws.models.build(model, spec, out_features, seed=seed, **options), seed=seed)


@dataclass(frozen=True)
class FewLabels:
    """Evaluations of an encoder with the labels of a share of the training signals: a linear probe, and fine-tuning."""

    shares: tuple[float, ...] = (0.01, 0.1, 1.0)
    epochs: int = 20
    steps: int = 20

    def __call__(self, model: Any, zoo: ws.Zoo, device: str) -> Mapping[str, float]:
        found = {}
        for share in self.shares:
            name = f"{100 * share:g}"
            found[f"probe_{name}"] = LinearProbe(share=share)(model.encoder, zoo, device)["test"]
            tuned = Headed(copy.deepcopy(model.encoder), zoo.num_classes)
            options = {"share": share, "epochs": self.epochs, "epoch_steps": self.steps, "batch_size": 256, "lr": 2e-3}
            found[f"tuned_{name}"] = ws.train(tuned, zoo, transform=NEGATED, device=device, **options).test
        return found


class OtherFits(Contrastive):
    """Signs and noise of another fit of the signal."""

    @classmethod
    def for_zoo(cls, zoo: ws.Zoo) -> OtherFits:
        return cls(augmentation(NEGATED), temperature=0.2, fits=zoo["train"])


class Copies(Contrastive):
    """Signs, noise and movements of the network itself."""

    @classmethod
    def for_zoo(cls, zoo: ws.Zoo) -> Copies:
        return cls(augmentation(f"{NEGATED}+{VIEWS}"), temperature=0.2)


def _unlabelled(model: str, options: dict[str, Any], objective: str, **train: Any) -> Entry:
    options = {"model": model, **options}
    return Entry(
        "benchmarks.suites:projected",
        options,
        train,
        outputs=64,
        objective=f"benchmarks.suites:{objective}",
        evaluations={"labels": FewLabels()},
    )


SELF_SUPERVISED = Suite(
    "self-supervised",
    {
        f"{name}-{kind}": _unlabelled(*size, objective, **train)
        for name, size in (("dwsnet", SMALL["dwsnet"]), ("forward-messages", OURS["forward-messages"]))
        for kind, objective, train in (
            ("copies", "Copies", {}),
            ("fits", "OtherFits", {}),
            ("untrained", "Copies", UNTRAINED),
        )
    },
    {"sign+noise": NEGATED},
    ws.TrainConfig(epochs=40, batch_size=256, lr=2e-3, epoch_steps=46),
)


def autoencoder(
    spec: ws.NetSpec, out_features: int, *, model: str, queries: int = 8, seed: int = 0, **options: Any
) -> Any:
    """Build an autoencoder around an encoder with that many outputs."""
    encoder = ws.models.build(model, spec, out_features, seed=seed, **options)
    return ws.models.Autoencoder(encoder, queries=queries, seed=seed)


def _reconstruction(model: str, options: dict[str, Any], **train: Any) -> Entry:
    objective = Reconstruction(ws.signals.grid(SIDE, SIDE), points=128)
    options = {"model": model, **options, "queries": 8}
    evaluations = {**PROBE, "mean-picture": MeanPicture()}
    return Entry(
        "benchmarks.suites:autoencoder", options, train, outputs=256, objective=objective, evaluations=evaluations
    )


RECONSTRUCTION = Suite(
    "reconstruction",
    {
        "forward-messages": _reconstruction(*OURS["forward-messages"]),
        "forward-messages-untrained": _reconstruction(*OURS["forward-messages"], **UNTRAINED),
        "nft": _reconstruction(*SMALL["nft"]),
    },
    ("none",),
    ws.TrainConfig(epochs=10, batch_size=64),
)


# --- the suites of benchmarks.studies


def _small(names: tuple[str, ...], **train: Mapping[str, Any]) -> dict[str, Entry]:
    return {name: Entry(*SMALL[name], train=train.get(name, {})) for name in names}


ACTIVATIONS = Suite(
    "activations",
    {
        "dwsnet": Entry(*SMALL["dwsnet"], {"lr": 4e-3}),
        **_small(("gmn", "scale-gmn", "typed-messages", "forward-messages", "probe-grid-net", "render-cnn")),
    },
    ("none",),
    ws.TrainConfig(epochs=12, batch_size=64),
)
RECIPES = Suite(
    "recipes",
    {"dwsnet": Entry(*SMALL["dwsnet"], {"lr": 4e-3}), "mlp": Entry(*SMALL["mlp"], {"lr": 1e-3})},
    ("none",),
    ws.TrainConfig(epochs=20, batch_size=64),
)
