"""How many visual tokens stay: one rounding rule, and budgets that the scores themselves decide.

The rule: a share of n tokens is floor(share * n + 1/2), at least 1; a count is at most n. Where nothing is to stay, the
operator is `withdraw`.
"""

from __future__ import annotations

import math

import torch

from vtw_search.errors import MissingExtraError

Keep = float | int | str
# Scores are float32; a bend in their curve that is no larger than this, relative to its height, is rounding.
_ROUNDING = 1e-6


def keep_count(keep: float | int, visual: int) -> int:
    """Return how many of `visual` tokens stay."""
    wanted = math.floor(keep * visual + 0.5) if isinstance(keep, float) else keep
    return min(max(wanted, 1), visual)


def keep_counts(keep: float | int, visual: torch.Tensor) -> torch.Tensor:
    """Return the counts of rows with `visual`, (B,), tokens each, without waiting for a GPU."""
    wanted = (keep * visual.double() + 0.5).floor().long() if isinstance(keep, float) else torch.full_like(visual, keep)
    return wanted.clamp_min(1).minimum(visual)


def knee(scores: torch.Tensor) -> int:
    """Return how many scores stand before the knee of the sorted curve: its largest distance below its chord.

    Args:
        scores: (N,) in falling order. A curve that nowhere falls below its chord has no knee, and every score stays.
    """
    span = float(scores[0] - scores[-1])
    if len(scores) < 3 or span <= 0:
        return len(scores)
    place = torch.linspace(0, 1, len(scores), dtype=torch.float64, device=scores.device)
    below = 1 - place - (scores.double() - scores[-1].double()) / span
    return int(below.argmax()) if float(below.max()) > _ROUNDING else len(scores)


def second_difference(scores: torch.Tensor) -> int:
    """Return how many scores stand before the largest second difference of the sorted curve; arguments as `knee`."""
    if len(scores) < 3 or float(scores[0] - scores[-1]) <= 0:
        return len(scores)
    values = scores.double()
    bends = values[:-2] - 2 * values[1:-1] + values[2:]
    return 1 + int(bends.argmax()) if float(bends.max()) > _ROUNDING * float(scores[0] - scores[-1]) else len(scores)


def lof(scores: torch.Tensor) -> int:
    """Return how many scores are outliers by their local density, as the authors' sibling method does; all if none is.

    Local outlier factor with at most 20 neighbours (arXiv 2409.01179); arguments as `knee`.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.neighbors import LocalOutlierFactor
    except ImportError as error:
        rule, remedy = "the budget 'lof' needs scikit-learn", "pip install 'vtw-search[search]', or take keep=knee"
        raise MissingExtraError(rule, remedy=remedy) from error
    if len(scores) < 3:
        return len(scores)
    found = LocalOutlierFactor(n_neighbors=min(20, len(scores) - 1)).fit_predict(scores.cpu().double()[:, None])
    return int((found == -1).sum()) or len(scores)


BUDGETS = {"knee": knee, "second_difference": second_difference, "lof": lof}


def budget_counts(name: str, scores: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """Return (B,) how many visual tokens stay in each row by the budget `name`; `scores` and `visual` are (B, T)."""
    counts = [
        BUDGETS[name](row[places].sort(descending=True).values) if bool(places.any()) else 0
        for row, places in zip(scores, visual, strict=True)
    ]
    return torch.tensor(counts, device=scores.device)
