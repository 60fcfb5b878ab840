"""Turn docstrings into Markdown for the API pages: formulas for KaTeX, tables, and links between names."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import griffe

_MATH_BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*))*)", flags=re.MULTILINE)
_TABLE = re.compile(
    r"^ *={3,}(?: +={3,})+\n(?:.*\n)*? *={3,}(?: +={3,})+\n(?:.*\n)*? *={3,}(?: +={3,})+$", re.MULTILINE
)
_ROLE = re.compile(r":(?:func|class|meth|mod|data):`~?([^`]*)`")
_PAGES = Path(__file__).parent / "api"
LISTED = set(re.findall(r"^::: (\S+)$", "\n".join(page.read_text() for page in _PAGES.glob("*.md")), re.MULTILINE))
"""Paths that have an entry on some API page, so that a name can link to it."""


def _block(indent: str, formula: str) -> str:
    lines = " ".join(line.strip() for line in formula.strip().splitlines())
    return f"\n{indent}\\[{lines}\\]\n"


def _fenced(text: str) -> str:
    return f"```text\n{textwrap.dedent(text).strip()}\n```"


def _reference(target: str, room: str) -> str:
    """Link a name to its API entry: the path as written, or the name within the room of the docstring."""
    for path in (target, f"{room}.{target}", f"weightspace.{target}", target.replace("ws.", "weightspace.", 1)):
        owner = path.rpartition(".")[0]
        if path in LISTED or owner in LISTED:
            return f"[`{target.removeprefix('weightspace.')}`][{path}]"
    return f"`{target}`"


def as_markdown(text: str, room: str = "weightspace") -> str:
    """Translate one docstring from reStructuredText, and name its example as griffe does."""
    text = _MATH_BLOCK.sub(lambda found: _block(found[1], found[2]), text)
    text = _TABLE.sub(lambda found: _fenced(found[0]), text)
    text = re.sub(r":math:`([^`]*)`", r"\\(\1\\)", text)
    text = _ROLE.sub(lambda found: _reference(found[1], room), text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    return re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Applies :func:`as_markdown` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            parts = obj.path.split(".")
            obj.docstring.value = as_markdown(obj.docstring.value, ".".join(parts[:2]))
