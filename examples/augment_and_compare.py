"""Apply augmentations to fitted networks and see how far each moves the weights, and how far the function."""

import torch

import weightspace as ws

STEPS = 150
IMAGES = 16
NAMES = ("permute", "sign", "phase", "rotate", "translate", "noise", "dropout", "mixup", "mixup-permutation")


def main() -> None:
    coords, targets = ws.signals.images(ws.datasets.embedded().subset(range(IMAGES)))
    fit = ws.fit(coords, targets, ws.siren(2, 32, 32, 1), steps=STEPS, lr=2e-3)
    pixels = ws.evaluate(fit.weights, coords)

    print(f"{'augmentation':20s} {'keeps':12s} {'weights moved':>14s} {'PSNR to the original':>22s}")
    for name in NAMES:
        transform = ws.transforms.augmentation(name)
        out = transform(fit.weights, generator=torch.Generator().manual_seed(0))
        moved = (out.flat - fit.weights.flat).norm(dim=1) / fit.weights.flat.norm(dim=1)
        psnr = ws.signals.psnr((ws.evaluate(out, coords) - pixels).square().mean())
        print(f"{name:20s} {transform.preserves:12s} {moved.mean():13.0%} {psnr:19.1f} dB")


if __name__ == "__main__":
    main()
