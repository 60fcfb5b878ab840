"""Learn a start for the recipe ``meta``, from which few steps fit any signal of a data set."""

from __future__ import annotations

import torch
from torch import Tensor

from weightspace._checks import check_generator, number, whole_number
from weightspace._random import rand
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.fitting._checks import check_signals
from weightspace.fitting._config import RECIPES, FitConfig
from weightspace.fitting._fit import fit
from weightspace.fitting._init import initial_weights

META_SIGNALS = 2000
"""The most training signals that the command line learns a start from."""


def meta_start(
    coords: Tensor,
    targets: Tensor,
    spec: NetSpec,
    *,
    generator: torch.Generator,
    rounds: int = 50,
    batch: int = 32,
    inner_steps: int = 15,
    rate: float = 1.0,
    config: FitConfig | None = None,
) -> Weights:
    r"""Learn one start from which all signals are fitted in few steps, by Reptile.

    .. math:: \theta \leftarrow \theta + \epsilon_r \; \frac{1}{B} \sum_{i} (\theta_i - \theta)

    where :math:`\theta_i` is the network that the inner steps fit to signal ``i`` of a random batch, from
    :math:`\theta`, and :math:`\epsilon_r` falls linearly to zero over the rounds.

    Args:
        coords: ``[point, in]``, or ``[signal, point, in]``.
        targets: ``[signal, point, out]``: of the training split alone, or what is learned from the weights later has
            seen the test signals.
        spec: the network.
        generator: draws the batches.
        rounds: outer steps.
        batch: signals in each round, at most as many as there are.
        inner_steps: Adam steps of each fit.
        rate: outer step size at the beginning, in (0, 1].
        config: the recipe of the inner fits (its ``lr``, ``init``, ``seed``); its number of steps is not used.

    Returns:
        One network, to be given to :func:`weightspace.fitting.fit` as ``start``.

    Raises:
        TypeError: for a generator or numbers of another type.
        ValueError: for signals that do not fit the spec, or numbers out of range.

    Example:
        >>> import weightspace as ws
        >>> coords, targets = ws.signals.images(torch.rand(4, 8, 8))
        >>> gen = torch.Generator().manual_seed(0)
        >>> start = meta_start(coords, targets, ws.siren(2, 8, 1), generator=gen, rounds=3, batch=2)
        >>> len(start), ws.fit(coords, targets, ws.siren(2, 8, 1), steps=5, start=start).psnr.shape
        (1, torch.Size([4]))

    Reference:
        Nichol, Achiam and Schulman, *On First-Order Meta-Learning Algorithms*, 2018, algorithm 2; learned starts for
        INR data sets: Dupont et al., *From data to functa*, 2022, section 3.
    """
    config = config or RECIPES["meta"]
    check_generator(generator)
    for name, value in (("rounds", rounds), ("batch", batch), ("inner_steps", inner_steps)):
        whole_number(name, value)
    number("rate", rate, "a rate in (0, 1]", low=1e-9, high=1.0)
    coords, targets = (torch.as_tensor(t, dtype=torch.float32) for t in (coords, targets))
    check_signals(coords, targets, spec)
    zero = torch.zeros(1, dtype=torch.int64)
    here = initial_weights(spec, zero, zero, seed=config.seed, init=config.init, shared=True)
    for step in range(rounds):
        picked = rand((len(targets),), generator=generator, dtype=torch.float64).cpu().argsort()[:batch]
        own = coords if coords.ndim == 2 else coords[picked]
        fitted = fit(own, targets[picked], spec, steps=inner_steps, lr=config.lr, init=config.init, start=here)
        change = fitted.weights.flat.mean(0, keepdim=True) - here.flat
        here = here.replace(here.flat + rate * (1 - step / rounds) * change)
    return here
