"""Docstrings for the API page: what they say in reStructuredText, as Markdown.

Formulas become blocks of LaTeX source, so that the page needs no script from elsewhere.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_MATH_BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*))*)", flags=re.MULTILINE)
_TABLE = re.compile(
    r"^ *={3,}(?: +={3,})+\n(?:.*\n)*? *={3,}(?: +={3,})+\n(?:.*\n)*? *={3,}(?: +={3,})+$", re.MULTILINE
)


def _fenced(indent: str, text: str) -> str:
    return textwrap.indent(f"```text\n{textwrap.dedent(text).strip()}\n```", indent)


def as_markdown(text: str) -> str:
    """One docstring with fenced formulas and tables, code for roles, and the section name that griffe knows."""
    text = _MATH_BLOCK.sub(lambda found: _fenced(found[1], re.sub(r"\n +", "\n", found[2].strip())), text)
    text = _TABLE.sub(lambda found: _fenced("", found[0]), text)
    text = re.sub(r":math:`([^`]*)`", r"`\1`", text)
    text = re.sub(r":(?:func|class|meth|mod):`~?([^`]*)`", r"`\1`", text)
    return re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Applies :func:`as_markdown` to whatever has a docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
