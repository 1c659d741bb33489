"""Which tokens of a padded batch are visual, and which of them stay: plain tensor code, bottom of the graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TokenLayout:
    """Roles of the tokens of one prefill.

    Attributes:
        visual: (B, T) bool, true at visual tokens.
        padding: (B, T) bool, true at padding; all false where the model was given no attention mask.
    """

    visual: torch.Tensor
    padding: torch.Tensor


def subject(visual: torch.Tensor, prompt: torch.Tensor, ends: bool = True) -> torch.Tensor:
    """Return (B, T) bool, true at the visual tokens that may leave: those of the prompt, but for its last token.

    The answer is read from the last token of a prompt, so that it stays, whatever it is.

    Args:
        visual: (B, T) bool, true at visual tokens.
        prompt: (B, T) bool, true at real tokens of the prompt.
        ends: whether the prompt ends with them; more of it is to come if not.
    """
    leaves = visual & prompt
    return leaves & (prompt.flip(1).cumsum(dim=1).flip(1) > 1) if ends else leaves


@dataclass(frozen=True)
class Grid:
    """Shape of one block of visual tokens: an image, a tile or a frame, row after row."""

    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """How many tokens the block has."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Selection:
    """Columns of a (B, T) sequence that stay, as a rectangle although rows may keep different numbers of tokens.

    Attributes:
        index: (B, S) long, ascending original columns; S is the largest number of tokens that a row keeps.
        filler: (B, S) bool, true where a row that keeps fewer tokens was filled up with one that left. Nobody may
            attend to a filler. None when every row keeps S tokens.
    """

    index: torch.Tensor
    filler: torch.Tensor | None

    @property
    def length(self) -> int:
        """S, the length of the shortened sequence."""
        return self.index.shape[1]

    def columns(self, part: slice) -> Selection:
        """Return a range of the S columns."""
        return Selection(self.index[:, part], None if self.filler is None else self.filler[:, part])

    def behind(self, start: int) -> Selection:
        """Return the same columns, counted in a sequence in which `start` others come before."""
        return Selection(self.index + start, self.filler)

    def followed_by(self, later: Selection) -> Selection:
        """Return these columns, then those of `later`."""
        index = torch.cat([self.index, later.index], dim=1)
        if self.filler is None and later.filler is None:
            return Selection(index, None)
        return Selection(index, torch.cat([_fillers(self), _fillers(later)], dim=1))


def everything(batch: int, start: int, length: int, device: torch.device) -> Selection:
    """Return the selection of `length` columns from `start` on, in every one of `batch` rows."""
    return Selection(torch.arange(start, start + length, device=device).expand(batch, length), None)


def select(keep: torch.Tensor) -> Selection | None:
    """Build the selection of the true entries of `keep`, (B, T) bool; order is kept. None when every token stays.

    Rows are filled from their front, so that with left padding the padding is taken first. Where nothing stays, every
    row has one filler. The lengths are read once, where a GPU is waited for; a withdrawal waits nowhere else, some
    scorers do.
    """
    counts = keep.sum(dim=1)
    longest, shortest = (int(value) for value in torch.stack([counts.max().clamp_min(1), counts.min()]).tolist())
    if shortest == keep.shape[1]:
        return None
    order = torch.argsort(keep.to(torch.uint8), dim=1, descending=True, stable=True)
    index = order[:, :longest].sort(dim=1).values
    return Selection(index, None if longest == shortest else ~keep.gather(1, index))


def _fillers(selection: Selection) -> torch.Tensor:
    missing = torch.zeros_like(selection.index, dtype=torch.bool)
    return missing if selection.filler is None else selection.filler
