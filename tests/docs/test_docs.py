"""The pages are true: their code runs, their commands parse, and what they list is what there is."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

import weightspace as ws
from weightspace import bench
from weightspace.bench._record import Result, Row, Run
from weightspace.cli import UsageError, app
from weightspace.transforms import AUGMENTATIONS
from weightspace.zoo._format import DTYPES, Manifest, Shard

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("README.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The fenced blocks of a language, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(1 + text.count("\n", 0, block.start(1)), block[1]) for block in found]


def run_page(page: Path) -> int:
    """Execute a page's Python blocks in order, in one namespace; how many there were."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = blocks(page, "python")
    for line, code in found:
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
    return len(found)


def commands() -> list[tuple[str, str]]:
    lines = [
        (name, line.split(" #")[0].strip())
        for page, name in zip(PAGES, NAMES, strict=True)
        for _, code in blocks(page, "bash")
        for line in code.splitlines()
    ]
    return [(name, line) for name, line in lines if line.startswith("weightspace ")]


def parse(line: str) -> None:
    """Read a command line as the program would, without running it.

    Raises:
        LookupError: for an unknown command.
        UsageError: for an unknown option or value, or a missing argument.
    """
    _, name, *rest = [word for word in shlex.split(line) if word != "--debug"]
    known()[name].make_context(name, rest)


def known() -> dict[str, Any]:
    """The commands by name."""
    group: Any = typer.main.get_command(app)
    return group.commands


def table_names(page: str) -> set[str]:
    """What stands as code in the first column of a page's tables."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        run_page(page)


def test_there_is_code_to_run() -> None:
    assert sum(len(blocks(page, "python")) for page in PAGES) > 20


def test_a_broken_page_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\na = 1\n```\n\n```python\nassert a == 2\n```\n")
    with pytest.raises(AssertionError):
        run_page(page)


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_parses(page: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", ["weightspace fitt a b", "weightspace fit a b --stepz 3", "weightspace fit a"])
def test_a_wrong_command_does_not_parse(line: str) -> None:
    with pytest.raises((LookupError, UsageError)):
        parse(line)


def test_every_command_is_listed() -> None:
    listed = {name.split()[0] for name in table_names("howto/cli.md")}
    assert set(known()) == listed - {"WEIGHTSPACE_DATA", "WEIGHTSPACE_CACHE"}


def test_every_augmentation_is_listed() -> None:
    text = (ROOT / "docs/howto/augment.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[^|]*` \| `([\w-]+)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(AUGMENTATIONS)


def test_what_augmentations_keep_is_as_listed() -> None:
    text = (ROOT / "docs/howto/augment.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `[^|]*` \| `([\w-]+)` \|[^|]*\| (\w+) \|", text, re.MULTILINE)
    assert dict(rows) == {name: made.preserves for name, made in AUGMENTATIONS.items()}


def test_every_model_is_listed() -> None:
    assert set(ws.models.MODELS) <= table_names("howto/models.md")


def test_what_models_respect_is_as_listed() -> None:
    text = (ROOT / "docs/howto/models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\| ([\w-]+) \| ([\w-]+) \| ([\w, ]+) \|", text, re.MULTILINE)
    listed = {name: (respects, track, tuple(heads.split(", "))) for name, respects, track, heads in rows}
    assert listed == {name: (m.respects, m.track, m.heads) for name, m in ws.models.MODELS.items()}


def test_every_suite_is_listed() -> None:
    assert set(bench.SUITES) <= table_names("howto/bench.md")


@pytest.mark.parametrize(("page", "config"), [("howto/fit.md", ws.FitConfig), ("howto/train.md", ws.TrainConfig)])
def test_every_field_of_a_configuration_is_listed(page: str, config: Any) -> None:
    assert {field.name for field in dataclasses.fields(config)} <= table_names(page)


def test_the_zoo_format_is_as_listed() -> None:
    fields = {"format", "version", *(field.name for field in dataclasses.fields(Manifest))}
    fields |= {field.name for field in dataclasses.fields(Shard)} | set(DTYPES)
    assert fields <= table_names("howto/fit.md")


def test_the_result_schema_is_as_listed() -> None:
    listed = table_names("howto/bench.md")
    assert {field.name for kind in (Result, Row) for field in dataclasses.fields(kind)} <= listed
    text = (ROOT / "docs/howto/bench.md").read_text(encoding="utf-8")
    inner = [field.name for field in dataclasses.fields(Run) if field.name != "history"]
    inner += bench.environment()["hardware"]
    assert [name for name in inner if f"`{name}`" not in text] == []


ROOMS = ("align", "bench", "fit", "models", "report", "signals", "testing", "train", "transforms", "zoo")


def public(room: str) -> dict[str, Any]:
    """The classes and functions of a module's ``__all__`` by their paths; ``ws.fit`` the function hides the module."""
    module = importlib.import_module(room)
    values = {f"{room}.{name}": getattr(module, name) for name in module.__all__}
    return {path: value for path, value in values.items() if inspect.isclass(value) or inspect.isfunction(value)}


def test_the_api_page_lists_the_public_surface() -> None:
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    known = {path: value for room in ROOMS for path, value in public(f"weightspace.{room}").items()}
    known |= public("weightspace")
    assert listed <= set(known), "listed, and not there"
    there = {id(known[path]) for path in listed}
    assert [path for path, value in known.items() if id(value) not in there] == []
