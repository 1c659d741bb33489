"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class WorkProgress:
    """Counts units of work of one task after the other.

    Args:
        console: where to show it.
        interval_s: seconds between lines when the console is not a terminal.
        prefix: of every line.
    """

    def __init__(self, console: Console, interval_s: float = 10.0, prefix: str = "") -> None:
        self.console, self.interval_s, self.prefix = console, interval_s, prefix
        self._description = ""
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        text = TextColumn("{task.description:<42}")
        self._bar = Progress(text, *columns, console=console, disable=not console.is_terminal)
        self._current = self._bar.add_task("", total=None, visible=False)
        self._began = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def start(self, description: str, total: int, done: int = 0) -> None:
        """Begin the next piece of work; `done` units of it were done by an earlier run."""
        description = self.prefix + description
        again = description == self._description and time.monotonic() - self._printed < self.interval_s
        self._bar.remove_task(self._current)
        self._current = self._bar.add_task(description, total=total, completed=done)
        self._began = time.monotonic()
        self._done, self._first, self._total, self._description = done, done, total, description
        if not self.console.is_terminal and not again:
            self._printed = self._began
            resumed = f" ({done} done before)" if done else ""
            self.console.print(f"{description}: {total} to do{resumed}", highlight=False)

    def advance(self, units: int = 1) -> None:
        """Report finished units."""
        self._bar.advance(self._current, units)
        self._done += units
        now = time.monotonic()
        if not self.console.is_terminal and now - self._printed >= self.interval_s and self._done < self._total:
            self._printed = now
            left = (now - self._began) / max(1, self._done - self._first) * (self._total - self._done)
            self.console.print(f"{self._description}: {self._done}/{self._total}, {left:.0f} s left", highlight=False)

    def note(self, text: str) -> None:
        """Say something once, above the bar."""
        self.console.print(text, highlight=False, markup=False)
