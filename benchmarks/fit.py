"""Fitting speed: the compiled kernel against every other method of fitting thousands of small networks, in one run.

Same networks, same initial weights, same number of full-batch Adam steps. The methods take turns within each
repeat, so that a change in the machine's load affects all of them; ratios are taken within a repeat. The rates of the
kernel's own register tile and sincos, measured in the same run, show how much of the machine it uses.

    python -m benchmarks.fit [--networks 64] [--steps 100] [--repeats 5] [--curves 1000]

JAX takes part where it is installed (``pip install jax``), unless ``--no-jax`` is given.

    python -m benchmarks.fit --recipes 256 [--repeats 5]

fits that many images of Fashion-MNIST by every recipe in turns instead: the cost of each (``recipes-cost.json``). The
kernels of a GPU are compared by ``benchmarks.gpu``.

    python -m benchmarks.fit --synthetic 64
    python -m benchmarks.fit --views-zoo FEW WHOLE OUT
    python -m benchmarks.fit --synthetic-zoo ZOO OUT [--views 4]

measures networks that are made from fitted ones without a fit (``synthetic-views.json``). The other two write zoos for
the suite ``views``: the training networks of ``FEW`` with the other splits of ``WHOLE``, and a zoo whose training
networks are the first views of another's and synthetic ones of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import weightspace as ws
from benchmarks import _roofline, _synthetic
from benchmarks._common import save, spread, timed
from benchmarks._fit_methods import Method, by_jax, by_kernel, by_vmap, one_at_a_time
from weightspace.fitting import RECIPES, meta_start
from weightspace.fitting._init import initial_weights

SPEC = ws.siren(2, 32, 32, 1)
OURS = "weightspace, compiled kernel"


def methods(alone: Method, *, jax: bool) -> dict[str, Method]:
    found = {
        OURS: by_kernel("compiled"),
        "weightspace, tensor path": by_kernel("torch"),
        "one at a time, a process a core": alone,
        **{f"vmap, chunks of {chunk}": by_vmap(chunk) for chunk in (4, 16, 32, 64)},
    }
    if jax and importlib.util.find_spec("jax") is not None:
        found |= {f"JAX vmap + scan, chunks of {chunk}": by_jax(chunk, mapped=False) for chunk in (1, 4, 16)}
        found["JAX lax.map + scan"] = by_jax(32, mapped=True)
    return found


def starts(count: int) -> Tensor:
    sources = torch.arange(count)
    return initial_weights(SPEC, sources, torch.zeros_like(sources), seed=0).flat


def speed(table: dict[str, Method], count: int, steps: int, repeats: int) -> dict[str, Any]:
    """Return rates and ratios of all methods on the same work."""
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:count])
    start = starts(count)
    fitted = {name: method(start, coords, targets, SPEC, steps) for name, method in table.items()}  # and warm
    same = {name: (flat - fitted[OURS]).abs().max().item() for name, flat in fitted.items()}
    seconds: dict[str, list[float]] = {name: [] for name in table}
    share, bound, rates = [], [], {}
    for _ in range(repeats):
        for name, method in table.items():
            seconds[name].append(timed(lambda m=method: m(start, coords, targets, SPEC, steps)))
        rates = _roofline.rates()
        bound.append(_roofline.networks_per_second(rates, len(coords), 32, 1000, grid=len(coords)))
        grid = _roofline.networks_per_second(rates, len(coords), 32, 1000, grid=56)
        rate = count * steps / 1000 / seconds[OURS][-1]
        share.append((rate / bound[-1], rate / grid))
    return {
        "networks_per_second_at_1000_steps": {
            name: spread([count * steps / 1000 / s for s in values]) for name, values in seconds.items()
        },
        "compiled_kernel_faster_by": {
            name: spread([s / o for s, o in zip(values, seconds[OURS], strict=True)])
            for name, values in seconds.items()
            if name != OURS
        },
        "roofline": {
            **rates,
            "networks_per_second_at_1000_steps": spread(bound),
            "share_reached": spread([a for a, _ in share]),
            "share_reached_if_the_grid_spares_the_first_sines": spread([b for _, b in share]),
        },
        "largest_difference_of_a_weight": same,
    }


def linear(counts: tuple[int, ...], steps: int, repeats: int) -> dict[str, Any]:
    """Return seconds against the number of networks."""

    def seconds(count: int) -> list[float]:
        coords, targets = ws.signals.images(ws.datasets.embedded().images[:count])
        return [timed(lambda: by_kernel("compiled")(starts(1), coords, targets, SPEC, steps)) for _ in range(repeats)]

    out = {str(count): spread(seconds(count)) for count in counts}
    return {"steps": steps, "seconds_by_networks": out}


def curves(table: dict[str, Method], steps: int, count: int = 4) -> dict[str, Any]:
    """Return the mean PSNR, in dB, of a few networks along the fit, for every method."""
    coords, targets = ws.signals.images(ws.datasets.embedded().images[:count])
    at = [s for s in (1, 10, 30, 100, 300, 600, 1000) if s <= steps]
    out: dict[str, list[float]] = {}
    for name, method in table.items():
        out[name] = []
        for s in at:
            flat = method(starts(count), coords, targets, SPEC, s)
            error = (ws.evaluate(ws.Weights(flat, SPEC), coords) - targets).square().mean((1, 2))
            out[name].append((-10 * error.log10()).mean().item())
    return {"steps": at, "mean_psnr_db": out, "networks": count}


def costs(names: list[str], count: int, repeats: int) -> list[dict[str, Any]]:
    """Return the rates of fitting the same images by every recipe; learning a start is timed by itself."""
    data = ws.datasets.load("fashion-mnist")
    coords, targets = ws.signals.images(data.images[:count])
    starts: dict[str, ws.Weights] = {}
    learned: dict[str, list[float]] = {name: [] for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    psnr: dict[str, float] = {}
    for _ in range(repeats):
        for name in names:
            config = RECIPES[name]
            spec = ws.siren(2, 32, 32, 1, init=config.init or "dws")
            if name == "meta":
                many, generator = ws.signals.images(data.images[:2000])[1], torch.Generator().manual_seed(0)
                begun = time.perf_counter()
                starts[name] = meta_start(coords, many, spec, generator=generator)
                learned[name].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            fit = ws.fit(coords, targets, spec, config=config, start=starts.get(name))
            rates[name].append(count / (time.perf_counter() - begun))
            assert fit.psnr is not None
            psnr[name] = fit.psnr.mean().item()
    return [
        {
            "recipe": name,
            "networks_per_second": spread(rates[name]),
            "psnr_db": psnr[name],
            "seconds_for_the_start": spread(learned[name]) if learned[name] else None,
        }
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--curves", type=int, default=1000, help="steps of the PSNR curves")
    parser.add_argument("--jax", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--recipes", type=int, help="measure the cost of the recipes instead, on so many images")
    parser.add_argument("--only", nargs="*", choices=list(RECIPES), default=list(RECIPES), help="of the recipes")
    parser.add_argument("--synthetic", type=int, help="measure synthetic views instead, of so many images")
    parser.add_argument("--synthetic-zoo", nargs=2, type=Path, metavar=("ZOO", "OUT"), help="write a zoo of them")
    parser.add_argument("--views-zoo", nargs=3, type=Path, metavar=("FEW", "WHOLE", "OUT"), help="join two zoos")
    parser.add_argument("--views", type=int, default=4, help="of the written zoo")
    args = parser.parse_args()
    if args.views_zoo:
        _synthetic.join(*args.views_zoo)
        return
    if args.synthetic_zoo:
        _synthetic.write_zoo(*args.synthetic_zoo, args.views)
        return
    if args.synthetic:
        torch.set_num_threads(1)
        what = f"{args.synthetic} images of Fashion-MNIST, SIREN 2-32-32-1; cost: processor time over that of a fit of "
        what += "1,000 steps; distance: mean squared, aligned over the full group"
        save("synthetic-views", {"benchmark": "fit", "what": what, "rows": _synthetic.rows(args.synthetic)}, threads=1)
        return
    if args.recipes:
        what = f"{args.recipes} images of Fashion-MNIST, SIREN 2-32-32-1"
        rows = costs(args.only, args.recipes, args.repeats)
        save("recipes-cost", {"benchmark": "fit", "what": what, "rows": rows})
        return
    what = f"{args.networks} networks SIREN 2-32-32-1, 784 points, {args.steps} full-batch Adam steps"
    with one_at_a_time() as alone:
        table = methods(alone, jax=args.jax)
        record = {
            "benchmark": "fit",
            "what": what,
            **speed(table, args.networks, args.steps, args.repeats),
            "linear_in_networks": linear(tuple(args.networks * n for n in (1, 2, 4, 8)), args.steps, args.repeats),
            "psnr_curves": curves({n: m for n, m in table.items() if not n.endswith("chunks of 1")}, args.curves),
        }
    save("fit", record)


if __name__ == "__main__":
    main()
