"""A light installation: what starts without torch, what starts without the extras, and what names the missing one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import weightspace as ws
from weightspace import cli
from weightspace._extras import lazy

EXTRAS = ("matplotlib", "jinja2", "tensorboard", "sklearn", "ray", "fsspec", "trimesh", "igl", "resvg_py")
ROOT = Path(ws.__file__).parents[1]
RUN = """
import sys

def run(*arguments):
    from weightspace.cli import main

    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return ended.code
"""
SUITE = """
from weightspace import TrainConfig
from weightspace.bench import Entry, Suite

SUITE = Suite("mine", {"mlp": Entry("mlp", {"hidden": 4, "layers": 1})}, ("none",), TrainConfig(epochs=1))
"""


def python(code: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    code = f"{RUN}\nsys.path.insert(0, {str(ROOT)!r})\n{code}"
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.mark.parametrize("command", [("--help",), ("--version",), ("data", "list"), ("data", "prepare", "--help")])
def test_help_and_lists_do_not_import_torch(command: tuple[str, ...]) -> None:
    done = python(f"code = run(*{command})\nprint(code, [m for m in ('torch', 'numpy', 'numba') if m in sys.modules])")
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0 []"


def test_every_command_starts_without_the_extras(tmp_path: Path) -> None:
    """One process without the optional packages: every help, and a zoo from fitting to a benchmark."""
    images = np.random.default_rng(0).random((40, 4, 4), dtype=np.float32)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 2)
    code = f"""
for name in {EXTRAS}:
    sys.modules[name] = None
from weightspace.cli import app
import typer
program = typer.main.get_command(app)
codes = {{name: run(name, "--help") for name in program.commands}}
codes["list"] = max(run("list", kind) for kind in ("models", "augmentations", "suites", "recipes", "datasets"))
model = ("--model", "mlp", "--hidden", "4", "--layers", "1", "--epochs", "1")
codes["fit"] = run("fit", "data.npz", "zoo", "--widths", "4", "--steps", "3", "--workers", "1")
codes["inspect"] = run("inspect", "zoo", "--picture", "zoo.png")
codes["verify"] = run("verify", "zoo")
codes["train"] = run("train", "zoo", *model, "--out", "run")
codes["stats"] = run("stats", "zoo")
codes["bench"] = run("bench", "mine:SUITE", "--zoo", "zoo", "--out", "grid", "--workers", "1")
codes["data"] = run("data", "list")
print({{name: code for name, code in codes.items() if code != 0}}, run("report", "grid/result.json"))
"""
    (tmp_path / "mine.py").write_text(SUITE)
    done = python(code, tmp_path)
    assert done.stdout.splitlines()[-1] == "{} 1"
    assert done.stderr.count("\n") == 1, "the report alone needs an extra"
    assert "pip install weightspace[report]" in done.stderr
    assert not (tmp_path / "report.html").exists()
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("demo", "--out", "new"), "report"),
        (("copy", "s3://bucket/zoo", "new"), "ray"),
        (("fit", "digits", "new"), "digits"),
        (("fit", "data.npz", "new", "--executor", "ray"), "ray"),
        (("data", "prepare", "emoji", "--out", "new.npz"), "emoji"),
        (("data", "prepare", "kicad", "--out", "new.npz"), "mesh"),
    ],
)
def test_a_missing_extra_is_named_in_one_line(
    command: tuple[str, ...],
    extra: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((9, 4, 4), np.float32))
    monkeypatch.chdir(tmp_path)
    for name in {*EXTRAS, *(name for name in sys.modules if name.split(".")[0] in EXTRAS)}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as ended:
        cli.main([*command])
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (1, 1)
    assert f"weightspace[{extra}]" in err
    assert not (tmp_path / "new").exists()


def test_names_are_imported_once_and_unknown_ones_refused() -> None:
    get = lazy("importlib", {"resources": ["files"], "_none": ["nothing"]})
    assert get("files").__name__ == "files"
    assert get("resources").__name__ == "importlib.resources"
    with pytest.raises(AttributeError, match="module 'importlib' has no attribute '_none'"):
        get("_none")
    with pytest.raises(ModuleNotFoundError):
        get("nothing")
