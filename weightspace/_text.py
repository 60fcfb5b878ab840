"""Text from files, made safe to print."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def printable(text: Any) -> str:
    r"""Return a text with everything escaped that a terminal might obey or hide, such as ``\x1b`` and ``\u202e``.

    Names and values that come out of a file go through this before they are printed: a zoo may be a stranger's. Letters
    of all scripts, signs and spaces stay. Control characters, line breaks, marks of direction, characters without width
    and halves of surrogate pairs are written as Python writes them in a string.

    Args:
        text: a text, or another value, which is turned into one.

    Example:
        >>> print(printable("naïve 数 \x1b[2J\n"))
        naïve 数 \x1b[2J\n
    """
    found = str(text)
    if found.isprintable():
        return found
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in found)


def few(names: Iterable[Any], most: int = 8) -> str:
    """Return a list of names for a message, the first few of a long one.

    Example:
        >>> print(few("abcde", 3))
        ['a', 'b', 'c' and 2 more]
    """
    given = [*names]
    more = f" and {len(given) - most} more" if len(given) > most else ""
    return f"[{', '.join(f'{name!r:.200}' for name in given[:most])}{more}]"
