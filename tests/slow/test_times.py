"""When a search takes its times, and what becomes of them where the clock does not hold still."""

from __future__ import annotations

from io import StringIO
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console

from profilers.stopwatch import CpuStopwatch
from tests.slow.searches import rows_of, search, small_config
from vtw_search.errors import OutOfReachError
from vtw_search.policies import Policy
from vtw_search.search import profile
from vtw_search.search.profile import Profiler, Timing
from vtw_search.worker_driver import run_worker

TIMED = ("profile=time", "profile.repeats=3", "search=times", "space.first_layer=6", "space.last_layer=8")
BOUNDED = "+limits.at_most.latency_ms=1000000"


def break_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    hours = count()
    monkeypatch.setattr(profile, "stopwatch_of", lambda _: CpuStopwatch(lambda: 3600.0 * next(hours), lambda: 0.0))


@pytest.mark.slow
def test_a_search_outlives_its_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        break_the_clock(broken)
        (study,) = search(tmp_path, *TIMED).studies
        assert all(row.untimed is None for row in study.rows)
        assert any(row.feasible for row in study.rows)
        assert study.rows[0].measurement.macs
        assert (study.rows[0].measurement.latency_problems or "").startswith("not timed: ")
        with pytest.raises(OutOfReachError, match=r"no policy for digits_read meets every limit: not timed: "):
            search(tmp_path, *TIMED, BOUNDED)
    (study,) = search(tmp_path, *TIMED, BOUNDED).studies
    assert all(row.measurement.latency_ms for row in study.rows)
    assert any(row.feasible for row in study.rows)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [(), ("sampler=tpe", "space=himap", "sampler.trials=6", "sampler.batch=3")])
def test_workers_take_no_times_before_one_of_them_is_left(
    sampler: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed, whole, said = StringIO(), Profiler._time, list[bool]()

    def time(self: Profiler, policy: Policy) -> Timing:
        said.append("finishes the search" in printed.getvalue())
        return whole(self, policy)

    monkeypatch.setattr(Profiler, "_time", time)
    space = [] if sampler else TIMED[3:]
    config = small_config(tmp_path, *TIMED[:3], *space, *sampler, BOUNDED, "worker=0")
    run_worker(config, Console(file=printed, width=110))
    assert said
    assert all(said)
    assert all(row["latency_ms"] or row["stopped"] for row in rows_of(tmp_path, "times")[1])


@pytest.mark.slow
def test_a_winner_that_only_the_tests_preferred_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_all = {Policy.keep_all().digest()}
    monkeypatch.setattr("vtw_search.search.study.worth_timing", lambda rows: keep_all)
    limits = ("limits.confidence=0.95", "limits.accuracy_drop=0.1", "limits.kl_nats=0.1")
    asked = ("task=easy_vqa_yesno", "samples.confirmation=100", *limits)
    (study,) = search(tmp_path, *TIMED, *asked).studies
    assert not study.chosen.measurement.policy.is_keep_all
    assert study.chosen.measurement.latency_ms
    assert "of the prefill time" in study.verdict
    untimed = [row for row in study.rows if not row.chosen and not row.measurement.policy.is_keep_all]
    assert all(row.measurement.latency_ms is None for row in untimed)
    (again,) = search(tmp_path, *TIMED, *asked).studies
    assert again.chosen == study.chosen
