"""Which samples of a file belong together: those that share a picture, or what the file calls a cluster."""

from __future__ import annotations

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import radius_neighbors_graph

from vtw_search.errors import DataWarning, TaskError
from vtw_search.evaluation.tasks.looks import Look, look_at
from vtw_search.evaluation.tasks.sample import FileImage

_SHOWN = 3


@dataclass(frozen=True)
class Pictures:
    """The picture files that some samples show.

    Attributes:
        shown: per sample, its files.
        source: the task file that shows them.
        near_bits: of the 64 of a difference hash, how many may differ between near-duplicates; None links none.

    Raises:
        TaskError: `near_bits` is out of range.
    """

    shown: Sequence[Sequence[Path]]
    source: str
    near_bits: int | None = None

    def __post_init__(self) -> None:
        if self.near_bits not in (None, *range(17)):
            rule = "near_duplicates must be a whole number of bits from 0 to 16"
            remedy = "0 links what hashes alike, 4 is usual; unrelated pictures differ in 20 and more"
            raise TaskError(rule, value=self.near_bits, remedy=remedy)

    @cached_property
    def bytes_of(self) -> Mapping[Path, str]:
        """Hash of each file's bytes."""
        return {path: FileImage(path).digest() for path in dict.fromkeys(path for each in self.shown for path in each)}

    def same_pixels(self) -> list[tuple[Path, Path]]:
        """Return pairs of files that hold the same pixels in other bytes, the first one with each of the others."""
        by_pixels: defaultdict[str, list[Path]] = defaultdict(list)
        for path, look in self._looks.items():
            by_pixels[look.pixels].append(path)
        return [(first, other) for first, *others in by_pixels.values() for other in others]

    def near_duplicates(self) -> list[tuple[Path, Path]]:
        """Return pairs of files, in other pixels, whose difference hashes differ in few enough bits."""
        if self.near_bits is None or len(self._looks) < 2:
            return []
        paths, looks = zip(*self._looks.items(), strict=True)
        words = np.array([look.difference for look in looks], dtype=np.uint64)
        bits = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1)
        graph = radius_neighbors_graph(bits, (self.near_bits + 0.5) / 64, metric="hamming").tocoo()
        pairs = [(row, column) for row, column in zip(graph.row, graph.col, strict=True) if row < column]
        return [(paths[row], paths[column]) for row, column in pairs if looks[row].pixels != looks[column].pixels]

    @cached_property
    def _looks(self) -> Mapping[Path, Look]:
        """Looks at one file of each content; without near-duplicates, only at those that may have the same pixels.

        What cannot be opened is left out: the preflight tells of it, if a split has it.
        """
        distinct: dict[str, Path] = {}
        for path, digest in self.bytes_of.items():
            distinct.setdefault(digest, path)
        found = look_at(distinct if self.near_bits is not None else _of_one_size(distinct), self.source)
        return {distinct[digest]: look for digest, look in found.items() if look is not None}


def _of_one_size(files: Mapping[str, Path]) -> Mapping[str, Path]:
    """Return the files whose pictures are as large as another one, upright or not."""
    by_size: defaultdict[tuple[int, ...], dict[str, Path]] = defaultdict(dict)
    for digest, path in files.items():
        with contextlib.suppress(TaskError):  # it cannot be opened
            by_size[tuple(sorted(FileImage(path).size()))][digest] = path
    return {digest: path for alike in by_size.values() if len(alike) > 1 for digest, path in alike.items()}


def name_clusters(ids: Sequence[str], pictures: Pictures, given: Sequence[str | None]) -> list[str]:
    """Return the name of each sample's cluster: the connected components of samples that share anything.

    Shared are a picture's bytes, its pixels, a cluster that the file names and, if asked for, what looks nearly alike.
    The name is the smallest digest of the bytes of their pictures: it decides about the split, so that other files over
    the same pictures, as long as they link the same ones, are not searched on what this one is tested on.

    Args:
        ids: of the samples.
        pictures: that they show.
        given: clusters of the file, None where it names none.

    Raises:
        TaskError: a picture's file cannot be read.
    """
    owners: dict[Hashable, int] = {}
    links = [
        (number, owners.setdefault(key, number))
        for number, (paths, cluster) in enumerate(zip(pictures.shown, given, strict=True))
        for key in (*(pictures.bytes_of[path] for path in paths), *([] if cluster is None else [("cluster", cluster)]))
    ]
    alike, near = pictures.same_pixels(), pictures.near_duplicates()
    _tell(pictures.source, "are the same pictures in other files", alike)
    _tell(pictures.source, f"look alike (at most {pictures.near_bits} of 64 bits differ)", near)
    links += [(owners[pictures.bytes_of[one]], owners[pictures.bytes_of[other]]) for one, other in (*alike, *near)]
    labels = _components(len(ids), links)
    names: dict[int, str] = {}
    for sample, label, paths in zip(ids, labels, pictures.shown, strict=True):
        digests = [pictures.bytes_of[path] for path in paths]
        names[label] = min([*digests, names.get(label, f"sample {sample}")])  # digests are smaller than words
    return [names[label] for label in labels]


def _components(count: int, links: Sequence[tuple[int, int]]) -> list[int]:
    left, right = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(left)), (left, right)), shape=(count, count))
    found: list[int] = connected_components(graph, directed=False)[1].tolist()
    return found


def _tell(source: str, what: str, pairs: Sequence[tuple[Path, Path]]) -> None:
    if pairs:
        shown = ", ".join(f"{one.name} and {other.name}" for one, other in pairs[:_SHOWN])
        more = f" and {len(pairs) - _SHOWN} more pair(s)" if len(pairs) > _SHOWN else ""
        warnings.warn(f"{source}: {shown}{more} {what}; each such pair is in one split", DataWarning, stacklevel=3)
