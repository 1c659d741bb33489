"""Which samples of a file belong together: those that share a picture, or what the file calls a cluster."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import radius_neighbors_graph

from vtw_search.errors import DataWarning, TaskError
from vtw_search.evaluation.tasks.picture import difference_hash, pixels_digest
from vtw_search.evaluation.tasks.sample import FileImage

_SHOWN = 3


@dataclass(frozen=True)
class Pictures:
    """The picture files that some samples show.

    Attributes:
        shown: per sample, its files.
    """

    shown: Sequence[Sequence[Path]]

    @cached_property
    def bytes_of(self) -> Mapping[Path, str]:
        """Hash of each file's bytes."""
        return {path: FileImage(path).digest() for path in dict.fromkeys(path for each in self.shown for path in each)}

    def same_pixels(self) -> Iterator[list[Path]]:
        """Yield files that hold the same pixels in other bytes. Only those of one size are decoded."""
        by_size: defaultdict[Hashable, dict[str, Path]] = defaultdict(dict)
        for path, digest in self.bytes_of.items():
            # Which side is which is known when the picture stands upright; a file that cannot be read is told of later.
            size = _size(path)
            if size is not None:
                by_size[size].setdefault(digest, path)
        for alike in by_size.values():
            by_pixels: defaultdict[str, list[Path]] = defaultdict(list)
            for path in alike.values() if len(alike) > 1 else ():
                by_pixels[_pixels(path)].append(path)
            yield from (paths for paths in by_pixels.values() if len(paths) > 1)

    def near(self, bits: int) -> list[tuple[Path, Path]]:
        """Return pairs of files whose difference hashes differ in at most `bits` of 64 bits."""
        paths = list({digest: path for path, digest in self.bytes_of.items()}.values())
        if len(paths) < 2:
            return []
        hashes = np.array([difference_hash(FileImage(path).open()) for path in paths])
        graph = radius_neighbors_graph(hashes, (bits + 0.5) / 64, metric="hamming").tocoo()
        return [(paths[row], paths[column]) for row, column in zip(graph.row, graph.col, strict=True) if row < column]


def name_clusters(
    ids: Sequence[str], pictures: Pictures, given: Sequence[str | None], near_bits: int | None, source: str
) -> list[str]:
    """Return the name of each sample's cluster: the connected components of samples that share anything.

    Shared are a picture's bytes, its pixels, a cluster that the file names and, if asked for, what looks nearly alike.
    The name is the smallest digest of the bytes of their pictures: it decides about the split, so that other files over
    the same pictures, as long as they link the same ones, are not searched on what this one is tested on.

    Args:
        ids: of the samples.
        pictures: that they show.
        given: clusters of the file, None where it names none.
        near_bits: as in `Pictures.near`; None links no near-duplicates.
        source: names the file in messages.

    Raises:
        TaskError: a picture cannot be opened, or `near_bits` is out of range.
    """
    if near_bits is not None and not 0 <= near_bits <= 16:
        remedy = "0 links what hashes alike, 4 is usual; unrelated pictures differ in 20 and more"
        raise TaskError("near_duplicates must be a number of bits from 0 to 16", value=near_bits, remedy=remedy)
    owners: dict[Hashable, int] = {}
    links = [
        (number, owners.setdefault(key, number))
        for number, (paths, cluster) in enumerate(zip(pictures.shown, given, strict=True))
        for key in (*(pictures.bytes_of[path] for path in paths), *([] if cluster is None else [("cluster", cluster)]))
    ]
    alike = [(first, other) for first, *others in pictures.same_pixels() for other in others]
    near = [] if near_bits is None else [pair for pair in pictures.near(near_bits) if pair not in alike]
    _tell(source, "are the same pictures in other files", alike)
    _tell(source, f"look alike (at most {near_bits} of 64 bits differ)", near)
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


def _size(path: Path) -> Hashable:
    try:
        return tuple(sorted(FileImage(path).size()))
    except TaskError:
        return None


def _pixels(path: Path) -> str:
    try:
        return pixels_digest(FileImage(path).open())
    except TaskError:
        return f"unreadable {path}"
