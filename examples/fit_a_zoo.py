"""Fit networks to images and keep them as a zoo; stop it and run it again, and it goes on where it stopped."""

from pathlib import Path

import weightspace as ws

STEPS = 100
COUNTS = {"train": 64, "test": 16}
OUT = Path("runs/fit-a-zoo")


def main() -> None:
    data = ws.datasets.embedded()
    spec = ws.siren(2, 32, 32, 1, omega=30.0)
    config = ws.FitConfig(steps=STEPS, lr=2e-3, views=1, seed=0)

    def told(done: int, total: int, psnr: object) -> None:
        print(f"\r{done}/{total} networks", end="", flush=True)

    zoo = ws.fit_zoo(OUT, data, spec, config=config, counts=COUNTS, shard_size=32, on_progress=told)
    print()
    for split in zoo.splits:
        print(f"{split}: {zoo.count(split)} networks, {zoo.psnr(split).mean():.1f} dB on average")

    opened = ws.Zoo.open(OUT)  # sizes now, the hash of each shard before it is read
    print(f"{opened.init_regime} inits, first label {opened.classes[opened.labels('train')[0]]}")


if __name__ == "__main__":
    main()
