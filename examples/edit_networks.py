"""Edit pictures by the weights of the networks that hold them: no pixel goes in, none comes out.

A model learns, from networks alone, to turn each into one whose picture is thickened by a pixel all around.
"""

from pathlib import Path

import torch

import weightspace as ws
from weightspace.training import Editing

STEPS = 300
COUNTS = {"train": 600, "val": 200, "test": 200}
EPOCHS = 10
SIDE = 28
OUT = Path("runs/edit-networks")


def thicker(values: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each pixel's neighbourhood, ``[batch, point, 1]``."""
    pictures = values.transpose(1, 2).unflatten(2, (SIDE, SIDE))
    return torch.nn.functional.max_pool2d(pictures, 3, stride=1, padding=1).flatten(2).transpose(1, 2)


def main() -> None:
    config = ws.FitConfig(steps=STEPS, lr=2e-3)
    zoo = ws.fit_zoo(OUT / "zoo", ws.datasets.embedded(), ws.siren(2, 16, 16, 1), config=config, counts=COUNTS)
    coords = ws.signals.grid(SIDE, SIDE)
    objective = Editing(zoo.spec, coords, thicker)
    model = ws.models.build("dwsnet", zoo.spec, 1, seed=0, hidden=16, layers=2, head="editing")
    result = ws.train(model, zoo, objective=objective, epochs=EPOCHS, batch_size=32, lr=5e-3)
    assert result.test is not None
    test = zoo["test"].weights
    values = ws.evaluate(test, coords)
    before = (values - thicker(values)).square().mean().item()
    print(f"mean squared error to thicker pictures: {before:.4f} before, {-result.test:.4f} edited")
    edited = model(test)
    gained = ws.evaluate(edited, coords).mean() - values.mean()
    print(f"pictures gained {gained.item():.3f} in brightness")


if __name__ == "__main__":
    main()
