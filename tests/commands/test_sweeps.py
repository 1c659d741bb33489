"""A multirun: which jobs are a sweep, and what becomes of the others when one ends early."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra
from rich.console import Console

from vtw_search.commands.search import _sweep, main
from vtw_search.errors import OutOfReachError
from vtw_search.settings import SearchConfig


@pytest.mark.parametrize(
    "overrides,grouped",
    [
        (["worker=range(4)", "search=a"], False),
        (["worker=0,1"], False),
        (["worker=0"], False),
        (["worker=range(2)", "seed=0,1"], True),
        (["seed=0,1"], True),
        (["seed=0"], True),
    ],
)
def test_the_workers_of_one_search_are_no_sweep(overrides: list[str], grouped: bool) -> None:
    assert bool(_sweep(overrides)) == grouped


def test_a_sweep_goes_on_after_a_search_that_has_no_answer(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = []

    def search(config: SearchConfig, console: Console) -> None:
        begun.append(config.seed)
        if config.seed == 3:
            raise OSError(28, "No space left on device")
        if config.seed == 4:
            raise RuntimeError("a fault of the program")
        if config.seed:
            raise OutOfReachError(f"no policy with seed {config.seed}")

    monkeypatch.setattr("vtw_search.driver.run_search", search)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["vtw-search", "-m", "task=digits_read", "seed=2,0,3,4,1"])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit) as stop:
        main()
    assert begun == [2, 0, 3, 4, 1]
    assert stop.value.code == OutOfReachError.exit_code
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith(("vtw-search: ", "RuntimeError: "))] == [
        "vtw-search: no policy with seed 2",
        "vtw-search: [Errno 28] No space left on device; free space or fix the permissions and run again",
        "RuntimeError: a fault of the program",
        "vtw-search: no policy with seed 1",
        "vtw-search: no policy with seed 2",  # the first once more: its status is the sweep's
    ]
