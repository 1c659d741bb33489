"""Lines of progress where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from vtw_search.progress import WorkProgress


def test_lines_have_a_prefix_and_the_same_work_is_not_announced_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with WorkProgress(Console(file=stream, width=80), prefix="worker 1, ") as progress:
        progress.start("a", 10)
        progress.advance(2)
        progress.start("a", 10, 4)
        now[0] = 11.0
        progress.advance(2)
        progress.start("b", 3)
        now[0] = 30.0
        progress.start("b", 3, 1)
    assert stream.getvalue().splitlines() == [
        "worker 1, a: 10 to do",
        "worker 1, a: 6/10, 22 s left",
        "worker 1, b: 3 to do",
        "worker 1, b: 3 to do (1 done before)",
    ]
