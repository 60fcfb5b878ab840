"""A bar of progress on request, for functions that take long."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(text: str, progress: bool | None) -> Iterator[Callable[[int, int, str], None] | None]:
    """Show a bar while something is computed; yield the function to call with done, total and a note.

    Args:
        text: the name of the task.
        progress: whether to show it; ``None`` for in notebooks alone. Otherwise ``None`` is yielded.
    """
    if not ("ipykernel" in sys.modules if progress is None else progress):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeRemainingColumn()) as shown:
        task = shown.add_task(text, total=None, note="")
        yield lambda done, total, note: shown.update(task, completed=done, total=total, note=note)
