"""The four splits of a task, disjoint by cluster (image)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from vtw_search.errors import TaskError
from vtw_search.evaluation.tasks import Pools, Sample

SPLITS = ("calibration", "selection", "confirmation", "holdout")
_SEARCH_SPLITS = SPLITS[:3]


@dataclass(frozen=True)
class Splits:
    """Samples per split: calibration (divergence), selection (accuracy used to choose), confirmation (limits are tested
    here), holdout (published numbers)."""

    samples: Mapping[str, tuple[Sample, ...]]

    def __getitem__(self, split: str) -> tuple[Sample, ...]:
        return self.samples[split]

    @property
    def every(self) -> tuple[Sample, ...]:
        """The samples of all splits."""
        return tuple(sample for samples in self.samples.values() for sample in samples)

    def digest(self, split: str) -> str:
        """Hash the samples of one split, in order; every image is read once."""
        return self._digests[split]

    @cached_property
    def _digests(self) -> dict[str, str]:
        texts = {split: "".join(sample.digest() for sample in samples) for split, samples in self.samples.items()}
        return {split: hashlib.sha256(text.encode()).hexdigest()[:16] for split, text in texts.items()}


def counts_text(splits: Mapping[str, Splits]) -> str:
    """Return how many samples each task has per split, for people."""
    counts = [f"{name} " + "/".join(str(len(task[split])) for split in SPLITS) for name, task in splits.items()]
    return f"samples for {'/'.join(SPLITS)}: " + ", ".join(counts)


def make_splits(pools: Pools, seed: int, sizes: Mapping[str, int]) -> Splits:
    """Divide a task's pools into splits.

    The pool `holdout`, if there is one, is the holdout; otherwise a fifth of the clusters is, chosen by a hash that
    does not depend on the seed, so that no seed ever selects on another seed's holdout. Clusters that are not divided
    by the source go to calibration, selection and confirmation by `seed`, a third each. Within a split one sample of
    every cluster comes before the second of any.

    Args:
        pools: as `load_pools` returns them.
        seed: decides who goes where, and the order.
        sizes: at most so many samples per split.

    Raises:
        TaskError: a split would be empty.
    """
    groups = _grouped(pools, seed)
    chosen = {split: tuple(_spread(groups[split], seed)[: sizes[split]]) for split in SPLITS}
    empty = [split for split in SPLITS if sizes[split] > 0 and not chosen[split]]
    if empty:
        images = len({sample.cluster for pool in pools.values() for sample in pool})
        remedy = "a task needs enough distinct images for four disjoint splits; about 50 are a useful minimum"
        raise TaskError(f"no image is left for {', '.join(empty)}", value=f"{images} images", remedy=remedy)
    return Splits(chosen)


def _grouped(pools: Pools, seed: int) -> Mapping[str, Sequence[Sample]]:
    if set(pools) == set(SPLITS):
        return pools
    undivided = [sample for name, pool in pools.items() if name != "holdout" for sample in pool]
    groups: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    groups["holdout"] += pools.get("holdout", [])
    for sample in undivided:
        held = "holdout" not in pools and _draw("holdout", sample.cluster) < 0.2
        third = int(3 * _draw(str(seed), sample.cluster))
        groups["holdout" if held else _SEARCH_SPLITS[third]].append(sample)
    return groups


def _spread(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Order samples at random, with the n-th sample of every cluster before the (n+1)-th of any.

    Where a cluster stands depends neither on how many samples it has nor on the order of the file: the first so many
    samples are of a fair draw of clusters, each asked a fair draw of its questions.
    """
    first: dict[str, tuple[int, str]] = {}
    seen: dict[str, int] = {}
    places: dict[str, tuple[int, float]] = {}
    for sample in samples:
        named = len(sample.id), sample.id  # numbers in their order
        first[sample.cluster] = min(named, first.get(sample.cluster, named))
    for sample in sorted(samples, key=lambda sample: _draw(f"question {seed}", sample.id)):
        turn = seen[sample.cluster] = seen.get(sample.cluster, -1) + 1
        places[sample.id] = turn, _draw(f"order {seed}", first[sample.cluster][1])
    return sorted(samples, key=lambda sample: places[sample.id])


def _draw(salt: str, name: str) -> float:
    """Return a number in [0, 1) that depends on nothing but the arguments."""
    return int.from_bytes(hashlib.sha256(f"{salt}\x1f{name}".encode()).digest()[:7], "big") / 2**56
