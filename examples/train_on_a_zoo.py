"""Train a model on the networks of a zoo, with and without augmentation.

So few networks and epochs say how it is done, not which augmentation is best: `weightspace bench` does.
"""

from pathlib import Path

import weightspace as ws

STEPS = 60
COUNTS = {"train": 600, "val": 200, "test": 200}
EPOCHS = 8
OUT = Path("runs/train-on-a-zoo")


def main() -> None:
    config = ws.FitConfig(steps=STEPS, lr=5e-3)
    zoo = ws.fit_zoo(OUT / "zoo", ws.datasets.embedded(), ws.siren(2, 16, 16, 1), config=config, counts=COUNTS)
    for name in ("none", "permute+noise"):
        model = ws.models.DWSNet(zoo.spec, out_features=10, hidden=16, layers=2, seed=0)
        result = ws.train(
            model,
            zoo,
            transform=None if name == "none" else ws.transforms.augmentation(name),
            epochs=EPOCHS,
            batch_size=32,
            lr=5e-3,
            run_dir=OUT / name,
        )
        print(f"{name}: best epoch {result.best_epoch}, validation {result.val:.1%}, test {result.test:.1%}")


if __name__ == "__main__":
    main()
