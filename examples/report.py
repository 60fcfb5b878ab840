"""Measure a small grid of augmentations and write the page that compares them."""

from pathlib import Path

import weightspace as ws
from weightspace.bench import Entry, Suite, run_suite
from weightspace.report import format_table, write_report

STEPS = 30
COUNTS = {"train": 200, "val": 100, "test": 100}
EPOCHS = 4
OUT = Path("runs/report")


def main() -> None:
    config = ws.FitConfig(steps=STEPS, lr=5e-3)
    zoo = ws.fit_zoo(OUT / "zoo", ws.datasets.embedded(), ws.siren(2, 16, 16, 1), config=config, counts=COUNTS)
    suite = Suite(
        "example",
        {"mlp": Entry("mlp", {"hidden": 64, "layers": 1})},
        ("none", "noise", "sign"),
        ws.TrainConfig(epochs=EPOCHS, batch_size=32),
    )
    path = run_suite(suite, zoo.path, OUT / "bench", workers=1)
    print(format_table(path))
    print("open", write_report([path], OUT / "report.html", zoo=zoo.path))


if __name__ == "__main__":  # the cells of a suite are processes, which import this file
    main()
