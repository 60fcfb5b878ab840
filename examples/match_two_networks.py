"""Align networks that were fitted to the same images from different starts, and look at their midpoints."""

import torch

import weightspace as ws

STEPS = 200
IMAGES = 8


def main() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().subset(range(IMAGES)))
    fit = ws.fit(coords, targets, ws.siren(2, 32, 32, 1), steps=STEPS, lr=2e-3, views=2)
    a, b = fit.weights[fit.view == 0], fit.weights[fit.view == 1]

    print(f"fits of the same {IMAGES} images: {fit.psnr.mean():.1f} dB")
    aligned = {"not aligned": b}
    for group in ("permutation", "signed"):
        g = ws.align.match(a, b, group=group)
        aligned[group] = g.act(b)
        ws.testing.assert_same_function(b, aligned[group])
    for name, other in aligned.items():
        distance = ws.align.distance(a, other).mean()
        middle = a.replace(torch.lerp(a.flat, other.flat, 0.5))
        psnr = ws.signals.psnr((ws.evaluate(middle, coords) - targets).square().mean())
        print(f"{name:12s} squared distance {distance:6.2f}, midpoint {psnr:.1f} dB")


if __name__ == "__main__":
    main()
