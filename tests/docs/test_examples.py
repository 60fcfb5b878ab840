"""Every example runs as a person would run it, with smaller numbers at its top."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TINY = {
    "fit_a_zoo": {"STEPS": "2", "COUNTS": "{'train': 6, 'test': 4}"},
    "augment_and_compare": {"STEPS": "2", "IMAGES": "4"},
    "train_on_a_zoo": {"STEPS": "1", "COUNTS": "{'train': 34, 'val': 10, 'test': 10}", "EPOCHS": "1"},
    "edit_networks": {"STEPS": "1", "COUNTS": "{'train': 34, 'val': 10, 'test': 10}", "EPOCHS": "1"},
    "match_two_networks": {"STEPS": "2", "IMAGES": "2"},
    "align_four_ways": {"STEPS": "2", "PAIRS": "2", "TRAIN": "4", "TRAINING": "2"},
    "spec_of_a_module": {},
    "report": {"STEPS": "1", "COUNTS": "{'train': 34, 'val': 10, 'test': 10}", "EPOCHS": "1"},
}
SAYS = {
    "fit_a_zoo": "train: 6 networks",
    "augment_and_compare": "mixup-permutation",
    "train_on_a_zoo": "permute+noise: best epoch 1",
    "edit_networks": "mean squared error to thicker pictures",
    "match_two_networks": "signed",
    "align_four_ways": "learned",
    "spec_of_a_module": "refused: cannot prove symmetric",
    "report": "report.html",
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_example(name: str, tmp_path: Path) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    for constant, value in TINY[name].items():
        text, found = re.subn(rf"^{constant} = .*$", f"{constant} = {value}", text, flags=re.MULTILINE)
        assert found == 1, constant
    script = tmp_path / f"{name}.py"
    script.write_text(text, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert SAYS[name] in run.stdout
