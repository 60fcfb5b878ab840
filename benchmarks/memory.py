"""Peak memory of fitting and of training on a 60,000-image zoo, each in a process of its own.

Memory does not depend on the number of Adam steps or epochs, so this takes few of both.

    python -m benchmarks.memory [--images 60000] [--steps 2]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._common import save


def peak() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fit(path: Path, images: int, steps: int) -> None:
    import weightspace as ws

    counts = {"train": images * 9 // 10, "val": images // 10, "test": images // 6}
    zoo = ws.fit_zoo(
        path, ws.datasets.fashion_mnist(), ws.siren(2, 32, 32, 1), config=ws.FitConfig(steps=steps), counts=counts
    )
    print(json.dumps({"peak_mb": peak(), "networks": sum(zoo.count(s) for s in zoo.splits)}))


def train(path: Path) -> None:
    import weightspace as ws

    zoo = ws.Zoo.open(path)
    model = ws.models.DWSNet(zoo.spec, 10, hidden=16, layers=2)
    ws.train(model, zoo, transform=ws.transforms.augmentation("noise+mixup"), epochs=1, batch_size=512)
    print(json.dumps({"peak_mb": peak(), "networks": sum(zoo.count(s) for s in zoo.splits)}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=60000)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--phase", choices=["fit", "train"])
    parser.add_argument("--path", type=Path)
    args = parser.parse_args()
    if args.phase == "fit":
        return fit(args.path, args.images, args.steps)
    if args.phase == "train":
        return train(args.path)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for phase in ("fit", "train"):
            command = [sys.executable, "-m", "benchmarks.memory", "--phase", phase, "--path", f"{folder}/zoo"]
            command += ["--images", str(args.images), "--steps", str(args.steps)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            found[phase] = json.loads(run.stdout.splitlines()[-1])
    save("memory", {"benchmark": "memory", "what": "peak resident memory, MB, of one process", **found})
    return None


if __name__ == "__main__":
    main()
