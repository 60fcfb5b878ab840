"""The configuration of a fit, and the recipes by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from weightspace._checks import number, whole_number
from weightspace._spec import INITS, Init


@dataclass(frozen=True)
class FitConfig:
    """A recipe of fitting, which a zoo records.

    Args:
        steps: Adam steps of each network.
        lr: Adam step size.
        init: initialisation convention ("dws", "siren", "torch"), which the fitted networks' spec then records; the
            spec's own where ``None``.
        views: independent fits of every signal.
        seed: of the initial weights; each network's derive from (seed, source, view).
        target_psnr: dB at which a network stops early, compared every ten steps; ``None`` for never.
        shared_init: start every network from the same point (a different data set altogether: see the docs).
        points: points that each step uses, drawn anew for every network and step, for signals of many points; ``None``
            for all of them (full batch).

    Raises:
        TypeError: for a field of another type.
        ValueError: for a number out of range, an unknown init, or a target PSNR together with ``points``: what a few
            points say of it is noise.

    Example:
        >>> FitConfig(steps=200, lr=5e-3).regime
        'independent'
    """

    steps: int = 1000
    lr: float = 5e-4
    init: Init | None = None
    views: int = 1
    seed: int = 0
    target_psnr: float | None = None
    shared_init: bool = False
    points: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("views", 1), ("seed", 0)):
            whole_number(name, getattr(self, name), least)
        if self.points is not None:
            whole_number("points", self.points)
            if self.target_psnr is not None:
                raise ValueError(
                    "target_psnr: expected full batches (points=None) to measure it on, got minibatches of "
                    f"{self.points} points; choose the number of steps instead"
                )
        number("lr", self.lr, "a positive number", above=0)
        if self.target_psnr is not None:
            number("target_psnr", self.target_psnr, "a finite number of dB, or None")
        if self.init is not None and self.init not in INITS:
            raise ValueError(f"unknown init: expected one of {list(INITS)}, got {self.init!r}")

    @property
    def regime(self) -> str:
        """The init regime: ``"shared"`` if all networks start from one point, else ``"independent"``."""
        return "shared" if self.shared_init else "independent"

    def recipe(self) -> dict[str, Any]:
        """Return the plain values that a zoo's manifest records.

        Example:
            >>> FitConfig.from_recipe(FitConfig(steps=200).recipe()) == FitConfig(steps=200)
            True
        """
        return {"optimizer": "adam", "batch": "full" if self.points is None else "points", **asdict(self)}

    @classmethod
    def from_recipe(cls, recipe: Mapping[str, Any]) -> FitConfig:
        """Read the configuration back from a zoo's recipe; entries that are not fields are passed over.

        Raises:
            ValueError: for a recipe that :func:`weightspace.fit_zoo` did not write.
        """
        names = {field.name for field in fields(cls)}
        found = {name: value for name, value in recipe.items() if name in names}
        if not {"steps", "lr", "seed"} <= set(found):
            raise ValueError(f"recipe: expected one that fit_zoo wrote, got {dict(recipe)}")
        return cls(**found)


RECIPES: dict[str, FitConfig] = {
    "dws": FitConfig(steps=1000, lr=5e-4, init="dws"),
    "siren": FitConfig(steps=1000, lr=5e-4, init="siren", target_psnr=40.0),
    "siren-long": FitConfig(steps=1000, lr=5e-3, init="siren"),
    "shared": FitConfig(steps=1000, lr=5e-4, init="dws", shared_init=True),
    "meta": FitConfig(steps=100, lr=5e-3, init="dws", shared_init=True),
}
"""``dws``: as the released INR data sets were made. ``siren``: the first layer wider, up to 40 dB; ``siren-long`` ten
times the step size and no early stop. ``shared``: ``dws`` from one and the same start. ``meta``: a tenth of the steps,
with larger ones, from a start that :func:`meta_start` learned."""


def recipe(name: str) -> FitConfig:
    """Return a recipe by name: ``"dws"``, ``"siren"``, ``"siren-long"``, ``"shared"`` or ``"meta"``.

    Raises:
        ValueError: for a name that is none of them.

    Example:
        >>> recipe("siren").target_psnr
        40.0
    """
    if name not in RECIPES:
        raise ValueError(f"unknown recipe: expected one of {list(RECIPES)}, got {name!r}")
    return RECIPES[name]
