"""Candidates as a trie of stages: candidates that begin with the same stages share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vtw_search.runtime.stages import ReadyStage


@dataclass(eq=False)
class Node:
    """The candidates that have all stages up to `ready` in common.

    Attributes:
        ready: the last of these stages; None at the root, which stands for the reference.
        children: by the stage that comes next.
        candidates: numbers of the candidates that end here.
    """

    ready: ReadyStage | None = None
    children: list[Node] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)

    def until(self, layers: int) -> int:
        """Return the first layer that need not be run any more, of `layers`."""
        return layers if self.candidates else max((child.layer for child in self.children), default=0)

    @property
    def layer(self) -> int:
        """K of the stage; 0 at the root."""
        return self.ready.layer if self.ready else 0

    def reads_attention_of(self, layer: int) -> bool:
        """Whether a child forks behind `layer` by its attention."""
        return any(child.layer == layer + 1 and _reads_attention(child) for child in self.children)

    def walk(self) -> Iterator[Node]:
        """Yield the nodes below and this one first."""
        yield self
        for child in self.children:
            yield from child.walk()


def build_trie(candidates: Sequence[tuple[ReadyStage, ...]]) -> Node:
    """Return the root of the candidates' trie."""
    root = Node()
    for number, stages in enumerate(candidates):
        node = root
        for ready in stages:
            child = next((child for child in node.children if child.ready == ready), None)
            if child is None:
                child = Node(ready)
                node.children.append(child)
            node = child
        node.candidates.append(number)
    return root


def _reads_attention(node: Node) -> bool:
    return node.ready is not None and node.ready.reads == "attention"
