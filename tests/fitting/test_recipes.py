"""Recipes by name, one start for all networks, and the start that Reptile learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import weightspace as ws
from weightspace.fitting import RECIPES, meta_start
from weightspace.fitting._config import recipe
from weightspace.fitting._fit import _Job
from weightspace.fitting._init import initial_weights

SPEC = ws.siren(2, 16, 16, 1)


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    return ws.signals.images(ws.datasets.embedded().images[:48, ::2, ::2])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_recipes_are_the_stated_ones() -> None:
    assert recipe("dws") == ws.FitConfig(steps=1000, lr=5e-4, init="dws")
    assert recipe("siren").target_psnr == 40.0
    assert {name: config.regime for name, config in RECIPES.items() if config.shared_init} == {
        "shared": "shared",
        "meta": "shared",
    }
    with pytest.raises(ValueError, match="unknown recipe: expected one of"):
        recipe("functa")


def test_the_siren_recipe_stops_at_forty_db(images: tuple[Tensor, Tensor]) -> None:
    coords, targets = images
    spec, config = ws.siren(2, 32, 32, 1, init="siren"), recipe("siren")
    result, steps = _Job.prepare(coords, targets[:3], spec, config, None, None, 0, "cpu", "auto").run(3, 1, None)
    assert result.psnr is not None
    assert bool((steps < 1000).all())
    assert bool((result.psnr >= 40).all())


def test_one_start_for_all(images: tuple[Tensor, Tensor]) -> None:
    coords, targets = images
    one = torch.zeros(1, dtype=torch.int64)
    start = initial_weights(SPEC, one, one, seed=0, shared=True)
    given = ws.fit(coords, targets[:4], SPEC, steps=5, start=start)
    shared = ws.fit(coords, targets[:4], SPEC, steps=5, shared_init=True)
    assert torch.equal(given.weights.flat, shared.weights.flat)
    moved = ws.fit(coords, targets[:4], SPEC, steps=5, start=start.replace(start.flat + 0.01))
    assert not torch.equal(given.weights.flat, moved.weights.flat)


def test_a_learned_start_fits_unseen_signals_faster(images: tuple[Tensor, Tensor]) -> None:
    coords, targets = images
    start = meta_start(coords, targets[:40], SPEC, generator=generator(), rounds=25, batch=8)
    options = {"steps": 20, "lr": 5e-3}
    learned = ws.fit(coords, targets[40:], SPEC, start=start, **options)
    plain = ws.fit(coords, targets[40:], SPEC, shared_init=True, **options)
    assert learned.psnr.mean() > plain.psnr.mean() + 1.5


def test_a_learned_start_depends_on_generator_and_signals_alone(images: tuple[Tensor, Tensor]) -> None:
    coords, targets = images
    options = {"rounds": 2, "batch": 4, "inner_steps": 3}
    first = meta_start(coords, targets, SPEC, generator=generator(), **options)
    assert torch.equal(first.flat, meta_start(coords, targets, SPEC, generator=generator(), **options).flat)
    assert not torch.equal(first.flat, meta_start(coords, targets, SPEC, generator=generator(1), **options).flat)
    assert not torch.equal(first.flat, meta_start(coords, 1 - targets, SPEC, generator=generator(), **options).flat)


def test_reptile_is_the_papers_algorithm(images: tuple[Tensor, Tensor]) -> None:
    """Against algorithm 2, written down for all signals in every batch, so that the order does not matter."""
    coords, targets = (values[:6] if values.ndim == 3 else values for values in images)
    one = torch.zeros(1, dtype=torch.int64)
    here = initial_weights(SPEC, one, one, seed=0, init="dws", shared=True).flat
    for step in range(3):
        ends = [
            ws.fit(coords, target[None], SPEC, steps=4, lr=5e-3, init="dws", start=ws.Weights(here, SPEC)).weights.flat
            for target in targets
        ]
        here = here + 0.5 * (1 - step / 3) * (torch.cat(ends) - here).mean(0, keepdim=True)
    found = meta_start(coords, targets, SPEC, generator=generator(), rounds=3, batch=6, inner_steps=4, rate=0.5)
    torch.testing.assert_close(found.flat, here, atol=1e-6, rtol=0)


def test_a_zoo_records_its_start(images: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    coords, targets = images
    data = ws.datasets.embedded()
    spec, counts, config = ws.siren(2, 8, 1), {"train": 4, "test": 2}, ws.FitConfig(steps=2, shared_init=True)
    coords, targets = ws.signals.images(data.images[:8])
    start = meta_start(coords, targets, spec, generator=generator(), rounds=2, batch=4)
    zoo = ws.fit_zoo(tmp_path / "zoo", data, spec, config=config, counts=counts, start=start)
    assert zoo.init_regime == "meta"
    assert len(zoo.recipe["start"]) == 64
    plain = ws.fit_zoo(tmp_path / "plain", data, spec, config=config, counts=counts)
    assert plain.init_regime == "shared"
    assert plain.recipe["start"] is None
    assert not torch.equal(zoo.weights("train").flat, plain.weights("train").flat)
    again = ws.fit_zoo(tmp_path / "zoo", data, spec, config=config, counts=counts, start=start)
    assert torch.equal(again.weights("train").flat, zoo.weights("train").flat)
    with pytest.raises(ValueError, match="start"):
        ws.fit_zoo(tmp_path / "zoo", data, spec, config=config, counts=counts)


BAD = {
    "another spec": (lambda: ws.Weights(torch.zeros(1, 33), ws.siren(2, 8, 1)), "start: expected one network or"),
    "two networks": (lambda: ws.Weights(torch.zeros(2, SPEC.num_params), SPEC), "start: expected one network or"),
    "NaN": (lambda: ws.Weights(torch.full((1, SPEC.num_params), torch.nan), SPEC), "start: expected finite float32"),
    "float64": (lambda: ws.Weights(torch.zeros(1, SPEC.num_params).double(), SPEC), "start: expected finite float32"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_starts_are_refused(name: str, images: tuple[Tensor, Tensor]) -> None:
    make, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        ws.fit(*images, SPEC, steps=1, start=make())


def test_bad_options_of_the_learned_start_are_refused(images: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="rate"):
        meta_start(*images, SPEC, generator=generator(), rate=2.0)
    with pytest.raises(ValueError, match="rounds"):
        meta_start(*images, SPEC, generator=generator(), rounds=0)
    with pytest.raises(TypeError, match="generator"):
        meta_start(*images, SPEC, generator=None)  # pyright: ignore
