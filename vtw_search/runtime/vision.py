"""Reading the vision tower while it runs: what scorers need of its attention, reduced at once to a score per patch."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from typing import Any

import torch
from torch.nn import functional

from vtw_search.adapters import VisionTower
from vtw_search.errors import RuntimeUseError
from vtw_search.runtime.attention import AttentionProbe, Call
from vtw_search.scorers import VisionNeeds


class VisionNotes:
    """What was noted of one call of the tower; scores are (images, patches)."""

    def __init__(self, tower: VisionTower, needs: VisionNeeds) -> None:
        self.tower, self.needs = tower, needs
        self.cls: dict[int, torch.Tensor] = {}
        self.received: dict[int, torch.Tensor] = {}
        self.similarity: torch.Tensor | None = None
        self._calls = 0

    def note(self, call: Call) -> None:
        """Reduce the attention of the next layer."""
        layer, self._calls = self._calls, self._calls + 1
        first = self.tower.class_tokens
        images, patches = _size(call)
        if layer in self.needs.cls_layers:
            index = torch.zeros(images, 1, dtype=torch.long)
            self.cls[layer] = call.logits(index).softmax(dim=-1).mean(dim=1)[:, 0, first:]
        if layer in self.needs.received_layers:
            index = torch.arange(first, patches).expand(images, -1)
            self.received[layer] = call.logits(index).softmax(dim=-1).mean(dim=1).sum(dim=1)[:, first:]

    def finish(self, output: Any) -> None:
        """Take the class similarity from the tower's output, and check that every layer was seen.

        Raises:
            RuntimeUseError: the tower made another number of attention calls than it has layers.
        """
        if self._calls != self.tower.layers:
            raise RuntimeUseError(
                f"a tower of {self.tower.layers} layers must compute as many attentions to be read",
                value=self._calls,
                remedy="use a scorer that does not read the tower, such as uniform",
            )
        if self.needs.similarity:
            features = _features(output, self.tower.feature_layer).float()
            self.similarity = functional.cosine_similarity(features[:, 1:], features[:, :1], dim=-1)


class TowerReader:
    """Reads one call of a tower at a time, from `start` to `stop`."""

    def __init__(self) -> None:
        self.notes: VisionNotes | None = None
        self._used = False
        self._features: weakref.ref[torch.Tensor] | None = None
        self._open = ExitStack()

    def start(self, tower: VisionTower, needs: VisionNeeds) -> None:
        """Begin to note; what was noted of an earlier call is forgotten."""
        self._open.close()
        self._used, self._features = False, None
        self.notes = VisionNotes(tower, needs) if needs != VisionNeeds() else None
        if self.notes is not None:
            self._open.enter_context(AttentionProbe(self.notes.note))

    def stop(self, output: Any) -> None:
        """End; a tower that raised has no output."""
        self._open.close()
        if self.notes is not None and output is not None:
            self.notes.finish(output)

    def notes_for(self, features: torch.Tensor | None) -> VisionNotes:
        """Return the notes of a prompt's images: of the tower's last call, which no other prompt has used.

        Generation without a cache, whose steps all repeat the prompt, may use them again with the same `features`.

        Raises:
            RuntimeUseError: the tower has not run for these images.
        """
        again = features is not None and self._features is not None and self._features() is features
        if self.notes is None or (self._used and not again):
            raise RuntimeUseError(
                "a scorer that reads the vision tower needs the tower's run on the images of this very prompt",
                value="features that were encoded elsewhere or for another call",
                remedy="pass the pixels with the prompt",
            )
        self._used, self._features = True, None if features is None else weakref.ref(features)
        return self.notes


class PlacedVision:
    """Notes of the tower, placed at the tokens at hand."""

    def __init__(self, notes: VisionNotes, visual: torch.Tensor, index: torch.Tensor | None = None) -> None:
        """Place the notes of a batch.

        Args:
            notes: of the tower's call for this batch; its images are in the order of the rows.
            visual: (B, T) bool, of the whole prompt. With beams every row stands there several times.
            index: (B, n) columns at hand; None for all.
        """
        self.notes, self.visual, self.index = notes, visual, index

    @property
    def layers(self) -> int:
        """Number of layers of the tower."""
        return self.notes.tower.layers

    def cls_attention(self, layer: int, by_row: bool = False) -> torch.Tensor:
        """Return the attention of the class token in one layer."""
        return self._placed(self._by_row(self.notes.cls[layer]) if by_row else self.notes.cls[layer])

    def received_attention(self, layer: int, by_row: bool = False) -> torch.Tensor:
        """Return the attention that each patch receives in one layer."""
        return self._placed(self._by_row(self.notes.received[layer]) if by_row else self.notes.received[layer])

    def cls_similarity(self) -> torch.Tensor:
        """Return the similarity to the class token."""
        assert self.notes.similarity is not None
        return self._placed(self.notes.similarity)

    def _by_row(self, scores: torch.Tensor) -> torch.Tensor:
        grid = self.notes.tower.grid
        rows = scores.reshape(-1, grid.rows, grid.columns)
        return rows.mean(dim=2, keepdim=True).expand_as(rows).flatten(1)

    def _placed(self, scores: torch.Tensor) -> torch.Tensor:
        values = self.notes.tower.merged(scores).flatten()
        beams, odd = divmod(int(self.visual.sum()), len(values))
        if odd or not beams:
            raise RuntimeUseError(
                "the tower must have run on all that is visual in this very batch",
                value=f"{len(values)} scores for {int(self.visual.sum())} visual tokens",
                remedy="pass the pixels with the prompt, and nothing that another tower encodes",
            )
        once = self.visual[::beams]
        placed = torch.zeros(once.shape, device=once.device)
        placed[once] = values.to(once.device)
        placed = placed.repeat_interleave(beams, dim=0)
        return placed if self.index is None else placed.gather(1, self.index)


def _features(output: Any, layer: int) -> torch.Tensor:
    features: torch.Tensor = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
    return features


def _size(call: Call) -> tuple[int, int]:
    values = getattr(call, "values", None)
    shape = call.queries.shape if values is None else values.shape  # type: ignore[union-attr]
    return int(shape[0]), int(shape[2])
