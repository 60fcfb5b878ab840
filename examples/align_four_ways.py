"""Align networks by their weights, by their activations, by Sinkhorn's plans and by a learned aligner."""

import torch

import weightspace as ws

STEPS = 200
PAIRS = 8
TRAIN = 64
TRAINING = 100


def main() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().subset(range(2 * PAIRS + TRAIN)))
    fit = ws.fit(coords, targets, ws.siren(2, 32, 32, 1), steps=STEPS, lr=2e-3)
    a, b, rest = fit.weights[:PAIRS], fit.weights[PAIRS : 2 * PAIRS], fit.weights[2 * PAIRS :]

    aligner = ws.align.LearnedAligner(a.spec, group="full", channels=16, trunk=0)
    aligner.fit(rest, steps=TRAINING, batch=16, generator=torch.Generator().manual_seed(0))
    found = {
        "nothing": ws.Symmetry.identity(a.spec, batch=PAIRS),
        "weights": ws.align.match(a, b, group="full"),
        "activations": ws.align.match_activations(a, b, coords, group="full"),
        "sinkhorn": ws.align.sinkhorn(a, b, group="full"),
        "learned": aligner.match(a, b),
    }
    for name, g in found.items():
        ws.testing.assert_same_function(b, g.act(b))
        print(f"{name:12s} squared distance {float(ws.align.distance(a, g.act(b)).mean()):6.2f}")


if __name__ == "__main__":
    main()
