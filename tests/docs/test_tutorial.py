"""The tutorial from own files to predictions, run as it is written."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from _helpers import run_command

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "own-files.md"


def test_ten_commands_from_own_files_to_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    commands = [line for kind, text in blocks if kind == "bash" for line in text.splitlines()]
    assert len(commands) == 10
    exec(next(text for kind, text in blocks if kind == "python"), {"__name__": "__main__"})
    said = {}
    for line in commands:
        code, out, err = run_command(capsys, *shlex.split(line)[1:])
        assert code == 0, (line, err)
        said[line] = out
    accuracy = float(re.search(r"accuracy ([\d.]+) %", "".join(said.values()))[1])  # pyright: ignore
    assert accuracy > 60
    classes = list(csv.DictReader(Path("classes.csv").read_text().splitlines()))
    assert [row["file"] for row in classes] == ["0.png", "1.png", "2.png"]
    assert {row["class"] for row in classes} <= {"ring", "stripes"}
    accuracies = list(csv.DictReader(Path("accuracies.csv").read_text().splitlines()))
    assert all(np.isfinite(float(row["prediction"])) for row in accuracies)
    assert "Kendall's tau" in "".join(said.values())
    for name in ("zoo.png", "map.png", "features.npz"):
        assert Path(name).stat().st_size > 0
