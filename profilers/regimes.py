"""Regimes of use, and in words whether a policy pays off in each.

A policy's gain depends on how many prompts run together, how many of their tokens are visual and how long the answers
are; a single number would hide where it loses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

from profilers.statistics import Blocks, Interval, Summary, combined_interval

Verdict = Literal["pays off", "does not", "cannot tell"]
# By chance, so many blocks agree once in 32 times.
_BLOCKS_TO_AGREE: Final = 6
_AXES: Final = ("batch", "visual_tokens", "prompt_tokens", "output_tokens")


@dataclass(frozen=True, order=True)
class Regime:
    """One way of use, per row.

    Attributes:
        batch: rows that run together.
        visual_tokens: of the images of a row.
        prompt_tokens: text tokens of a row's prompt.
        output_tokens: tokens of its answer; the first comes with the prefill.
    """

    batch: int
    visual_tokens: int
    prompt_tokens: int
    output_tokens: int

    @property
    def axes(self) -> tuple[int, int, int, int]:
        """Its values in the order of the axes."""
        return self.batch, self.visual_tokens, self.prompt_tokens, self.output_tokens

    def label(self) -> str:
        """Return the regime in words."""
        outputs = f"{self.output_tokens} output token{'s' if self.output_tokens > 1 else ''}"
        return f"batch {self.batch}, {self.visual_tokens} visual and {self.prompt_tokens} text tokens, {outputs}"


def regime_grid(**axes: Sequence[int]) -> list[Regime]:
    """Return every combination of the values of the four axes of `Regime`.

    Raises:
        ValueError: an axis is missing, empty, or has a value below 1.
    """
    for name in _AXES:
        values = axes.get(name, ())
        if not values or any(value < 1 for value in values):
            raise ValueError(
                f"Every axis of a grid needs values of at least 1; got {name}={list(values)}. Give one value or more."
            )
    return [Regime(*values) for values in sorted(set(product(*(axes[name] for name in _AXES))))]


@dataclass(frozen=True)
class Phases:
    """Times of one regime.

    Attributes:
        vision: the vision tower, the same work on both sides; None where it could not be run apart.
        prefill: the decoder on the prompt, up to the first answer token.
        decode: one decode step, averaged over the answer; None where the answer is one token.
        output_tokens: of the regime.
    """

    vision: Blocks | None
    prefill: Blocks
    decode: Blocks | None
    output_tokens: int

    @property
    def vision_ms(self) -> float:
        """Median time of the vision tower; 0 where it could not be run apart."""
        return 0.0 if self.vision is None else self.vision.medians()[0]

    def summaries(self) -> dict[str, tuple[Summary, Summary]]:
        """Return the times of every phase that was run, reference and candidate, by name."""
        phases = {"vision": self.vision, "prefill": self.prefill, "decode": self.decode}
        return {name: blocks.summaries() for name, blocks in phases.items() if blocks is not None}

    def speedup(self, seed: int = 0) -> Interval:
        """Return reference / candidate of the whole answer; above 1 the candidate is faster."""
        blocks = [self.prefill, *([] if self.decode is None else [self.decode])]
        return combined_interval(blocks, self._ratio, seed)

    def first_token_speedup(self, seed: int = 0) -> Interval:
        """Return reference / candidate of the time to the first token."""
        return combined_interval([self.prefill], self._ratio, seed)

    def decode_speedup(self, seed: int = 0) -> Interval | None:
        """Return reference / candidate of one decode step."""
        if self.decode is None:
            return None
        return combined_interval([self.decode], lambda medians: medians[0][0] / medians[0][1], seed)

    def _ratio(self, medians: Sequence[tuple[float, float]]) -> float:
        reference, candidate = (self._total([side[place] for side in medians]) for place in (0, 1))
        return reference / candidate

    def _total(self, phases: Sequence[float]) -> float:
        prefill, *decode = phases
        return self.vision_ms + prefill + (self.output_tokens - 1) * sum(decode)

    def worst_and_best(self) -> tuple[float, float] | None:
        """Return reference / candidate of the whole answer by each phase's worst block and by each one's best.

        Within a block both sides meet the same machine. If all blocks gain, they do so by chance once in 2^(n-1) times
        (sign test, both sides), whatever spread, power limits or strangers did between them; with fewer than six blocks
        that is too often to say anything, and the answer is None.
        """
        phases = [self.prefill, *([] if self.decode is None else [self.decode])]
        if min(map(len, phases)) < _BLOCKS_TO_AGREE:
            return None
        reference = [phase.medians()[0] for phase in phases]
        worst, best = (
            self._total(reference)
            / self._total([ms * extreme(phase.ratios()) for ms, phase in zip(reference, phases, strict=True)])
            for extreme in (max, min)
        )
        return worst, best

    def totals_ms(self) -> tuple[float, float]:
        """Return the median times of a whole answer, reference and candidate."""
        medians = [self.prefill.medians(), *([] if self.decode is None else [self.decode.medians()])]
        reference, candidate = (self._total([side[place] for side in medians]) for place in (0, 1))
        return reference, candidate


def amdahl_ceiling(phases: Phases, kept_prefill: float, kept_decode: float) -> float:
    """Return the speed-up if everything that the policy touches took no time (Amdahl 1967).

    Args:
        phases: of the regime; the times of the reference count.
        kept_prefill: share of the decoder's prefill that no policy like this can save: the layers below its first
            stage, the text tokens above it and the language head, by macs.
        kept_decode: share of a decode step: the layers below its first stage and the language head, by macs.
    """
    vision, prefill = phases.vision_ms, phases.prefill.medians()[0]
    decode = 0.0 if phases.decode is None else phases.decode.medians()[0] * (phases.output_tokens - 1)
    return (vision + prefill + decode) / (vision + kept_prefill * prefill + kept_decode * decode)


@dataclass(frozen=True)
class GainingOutputs:
    """How long answers are that gain, in output tokens.

    Attributes:
        above: answers gain from about this length on; 1 where the first token gains.
        below: and up to about this length; None where no length is too long.
    """

    above: float
    below: float | None = None


def gaining_output_tokens(phases: Phases) -> GainingOutputs | None:
    """Return for how many output tokens the candidate is faster; None where it never is.

    A prefill that costs more than it saves can be paid back by faster decode steps, and the gain of a prefill can be
    lost by slower ones. Steps that were not timed are taken to cost the same on both sides.
    """
    reference, candidate = phases.prefill.medians()
    lost = candidate - reference
    decode_reference, decode_candidate = (0.0, 0.0) if phases.decode is None else phases.decode.medians()
    gained = decode_reference - decode_candidate
    if lost < 0:
        return GainingOutputs(1.0, None if gained >= 0 else 1.0 + lost / gained)
    return GainingOutputs(1.0 + lost / gained) if gained > 0 else None


def break_even_visual_tokens(speedups: Mapping[int, float]) -> float | None:
    """Return at how many visual tokens the speed-up passes 1 for good, interpolated between the measured counts.

    Args:
        speedups: by number of visual tokens, all else equal.

    Returns:
        The smallest measured count where every one gains, None where the largest does not.
    """
    points = sorted(speedups.items())
    lost = [place for place, (_, speedup) in enumerate(points) if speedup <= 1]
    if not lost:
        return float(points[0][0])
    if lost[-1] == len(points) - 1:
        return None
    (left, below), (right, above) = points[lost[-1] : lost[-1] + 2]
    return left + (right - left) * (1 - below) / (above - below)


def verdict(speedup: Interval, problems: Sequence[str], worst_and_best: tuple[float, float] | None) -> Verdict:
    """Say in words whether a policy pays off: where the interval leaves no doubt, and nothing speaks against the times.

    Where something does, every single block has to say the same.

    Args:
        speedup: of the whole answer.
        problems: why times should not be relied upon.
        worst_and_best: as `Phases.worst_and_best` returns it.
    """
    worst, best = worst_and_best or (0.0, float("inf"))
    if speedup.contains(1.0) or (problems and worst <= 1 <= best):
        return "cannot tell"
    return "pays off" if speedup.low > 1 else "does not"
