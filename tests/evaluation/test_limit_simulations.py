"""False acceptance at the limit, simulated: what the limits are tested with keeps its level, the bootstrap does not."""

from __future__ import annotations

from functools import cache

import pytest

from experiments.limit_simulations.simulation import (
    Cell,
    Law,
    cluster_cells,
    confirmed_cells,
    drop_cells,
    drop_laws,
    kl_cells,
    kl_laws,
    most_allowed,
    wired_cells,
)

KL_LAWS, DROP_LAWS = kl_laws(), drop_laws()
# 600 images take seconds per law: the fast tests draw 200, the slow ones both.
COUNTS = [200, pytest.param(600, marks=pytest.mark.slow)]


@cache
def cells_on_kl(law: Law, count: int) -> list[Cell]:
    return list(kl_cells(law, count))


def test_the_allowed_number_is_the_quantile_of_a_correct_procedure() -> None:
    assert most_allowed() == 123


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("law", KL_LAWS, ids=lambda law: law.name)
def test_limits_on_kl_are_rarely_accepted_when_they_only_just_break(law: Law, count: int) -> None:
    for cell in cells_on_kl(law, count):
        assert cell.is_naive or cell.wrong <= most_allowed(), cell


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", DROP_LAWS)
def test_limits_on_accuracy_are_rarely_accepted_when_they_only_just_break(name: str, count: int) -> None:
    for cell in drop_cells(name, DROP_LAWS[name], count):
        assert cell.is_naive or cell.wrong <= most_allowed(), cell


# 600 images of 2,000 policies are a table of 2.4 million rows: the experiment draws them for every law.
@pytest.mark.parametrize(
    "law,count",
    [*((law, 200) for law in KL_LAWS), *(pytest.param(law, 600, marks=pytest.mark.slow) for law in KL_LAWS[-2:])],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_racing_rarely_stops_what_is_within_all_of_its_limits(law: Law, count: int) -> None:
    for cell in wired_cells(law, count):
        assert cell.wrong <= most_allowed(), cell


# A finalist at a time, as in a search: the experiment repeats it 2,000 times.
@pytest.mark.parametrize(
    "law,repetitions",
    [pytest.param(law, 500, marks=pytest.mark.slow) for law in KL_LAWS[-2:]],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_confirmation_rarely_passes_what_only_just_breaks_one_of_its_limits(law: Law, repetitions: int) -> None:
    cells = list(confirmed_cells(law, 200, repetitions=repetitions))
    assert len(cells) == 3
    for cell in cells:
        assert cell.wrong <= most_allowed(repetitions), cell
    assert any(cell.right > cell.wrong for cell in cells), "a test that passes nothing keeps every level"


def test_the_naive_bootstrap_accepts_too_often() -> None:
    wrong = {law.name: [cell.wrong for cell in cells_on_kl(law, 200) if cell.is_naive] for law in KL_LAWS}
    assert all(each > most_allowed() for cells in wrong.values() for each in cells)


@pytest.mark.parametrize("count", COUNTS)
def test_questions_on_one_image_are_one_draw(count: int) -> None:
    images, questions = cluster_cells(count)
    assert images.wrong <= most_allowed() < questions.wrong


@pytest.mark.slow
def test_good_candidates_are_accepted_although_the_level_is_kept() -> None:
    """A bound that accepts nothing keeps every level; this one accepts half the limit nearly always, where it can."""
    lognormal = next(law for law in KL_LAWS if law.name == "lognormal, sigma 2")
    [cell] = [cell for cell in cells_on_kl(lognormal, 600) if cell.method == "betting, E[min(KL, 0.1)]"]
    assert cell.right >= 1900
