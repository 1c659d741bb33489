"""Every preset of limits in a whole search on the shipped model: the answer is what brute force finds in its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pytest

from tests.search.test_presets import PRESETS
from tests.slow.searches import search
from vtw_search import Policy
from vtw_search.driver import SearchResult

TASK = "easy_vqa_yesno"
# As many as the published rule asks for.
SIZES = ("samples.calibration=20", "samples.selection=20", "batch_size=10")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all presets: what one has measured the others have, too."""
    return tmp_path_factory.mktemp("presets")


def numbers_of(result: SearchResult) -> Iterator[tuple[Policy, Mapping[str, float]]]:
    """Every candidate with what the presets are about, from the sample records."""
    [study] = result.studies
    frame = pd.read_parquet(Path(study.records) / "samples.parquet")
    groups = {digest: rows.sort_values("position").set_index("sample") for digest, rows in frame.groupby("policy")}
    kept = groups[study.rows[0].measurement.policy.digest()]
    for row in study.rows[1:]:
        own = row.measurement
        rows = groups[own.policy.digest()]
        divergence, chosen = rows[rows["split"] == "calibration"], rows[rows["split"] == "selection"]
        yield own.policy, {
            "layer": own.layer, "kl": divergence["kl_answer_nats"].mean(),
            "tail": (divergence["kl_answer_nats"] > 0.1).mean(), "macs": float(own.macs or 0),
            "kl_20": divergence["kl_first_reverse_nats"].head(20).mean(),
            "drop": (kept.loc[chosen.index, "score"] - chosen["score"]).mean(),
            **{name: getattr(own, name) for name in ("macs_ratio", "cache_ratio", "latency_ms", "latency_ratio")},
        }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_search_with_a_preset_finds_what_brute_force_finds(preset: str, folder: Path) -> None:
    allowed, least = PRESETS[preset]
    timed = () if preset not in ("fastest_2_points", "first_token_200ms") else ("profile=time", "profile.repeats=3")
    asked = (f"task={TASK}", "space=[vtw,downsample]", f"limits={preset}", "limits.confidence=null", *SIZES, *timed)
    result = search(folder, *asked, f"search={preset}")
    numbers = dict(numbers_of(result))
    within = {policy: found for policy, found in numbers.items() if allowed(found)}
    assert within, "a preset that allows nothing would show nothing"
    chosen = result.policies.tasks[TASK].policy
    assert least(numbers[chosen]) == pytest.approx(min(map(least, within.values())))
