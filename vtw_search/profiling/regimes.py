"""A policy in every regime of a grid: macs, time, memory, and in words whether it pays off."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from profilers.closed_form import projector_macs, tower_macs
from profilers.environment import Environment, read_environment
from profilers.memory import available_bytes, is_out_of_memory, kv_cache_bytes
from profilers.prefill import PrefillCost
from profilers.protocol import ProtocolSettings
from profilers.regimes import Phases, Regime, amdahl_ceiling, gaining_output_tokens, verdict
from profilers.stopwatch import Stopwatch, Work, stopwatch_of
from profilers.timing import Compared, UnsteadyClockError, compare
from profilers.watch import Watch, watched
from vtw_search.adapters import Adapter
from vtw_search.errors import ModelError, PolicyError
from vtw_search.operators import find_operator
from vtw_search.policies import Policy
from vtw_search.profiling.rows import RegimeRow, Side
from vtw_search.profiling.schedule import left_by, scorer_macs, scorer_shape, tokens_per_layer
from vtw_search.profiling.vision import images_of_a_row, left_out, vision_parts
from vtw_search.profiling.works import RegimeWorks
from vtw_search.runtime.readiness import make_ready
from vtw_search.tokens import Grid


@dataclass(frozen=True)
class RegimeRunner:
    """Measures a policy in regimes.

    Attributes:
        adapter, model: the model is in evaluation mode on its device, or on the meta device to count alone.
        policy: of the candidate.
        settings: of the timing; None to count alone.
        stopwatch: of the model's device if not given.

    Raises:
        PolicyError: the policy does not fit the model, or asks for what only real samples have.
    """

    adapter: Adapter
    model: Any
    policy: Policy
    settings: ProtocolSettings | None
    stopwatch: Stopwatch | None = None

    def __post_init__(self) -> None:
        ready = make_ready(self.policy, self.adapter.facts(self.model))
        remedy = "search it: a search counts and times it on real samples"
        for stage in self.policy.stages:
            if left_by(stage, 1, [Grid(1, 1)]) is None:
                rule = "a profile needs policies whose counts do not depend on scores"
                raise PolicyError(rule, value=stage.label(), remedy=remedy)
        for each in ready:
            if self.settings is not None and each.reads == "vision":
                rule = "a prefill is timed without running the vision tower, so that no scorer can read it"
                remedy = f"count it with profile=macs, or {remedy}"
                raise PolicyError(rule, value=each.stage.label(), remedy=remedy)

    def rows(self, grid: Sequence[Regime]) -> Iterator[RegimeRow]:
        """Yield one row per regime, in order; where memory is too small or the clock jumps, the row says so."""
        for regime in grid:
            counted = self._counted(regime)
            yield counted if self.settings is None else self._measured(counted)

    def environment(self) -> Environment:
        """Return what has to be known about the machine to judge the times."""
        attention = self.model.config.get_text_config(decoder=True)._attn_implementation
        return read_environment(self.model.device, str(self.model.dtype).removeprefix("torch."), attention)

    def _counted(self, regime: Regime) -> RegimeRow:
        cost, full = prefill_cost(self.adapter, self.model, regime), Policy.keep_all()
        reference, candidate = (self._side(cost, regime, policy) for policy in (full, self.policy))
        return RegimeRow(regime, "counted", reference, candidate, left_out(self.adapter, self.model))

    def _side(self, cost: PrefillCost, regime: Regime, policy: Policy) -> Side:
        layout, generated = RegimeWorks.layout_of(regime), regime.output_tokens - 1
        on_grids = any(find_operator(stage.operator).keeps == "share" for stage in policy.stages)
        grids = self.adapter.grids(self.model, {}, regime.visual_tokens) if on_grids else ()
        schedule = tokens_per_layer(policy, layout, len(cost.shape.layers), grids)
        scorers = scorer_macs(policy, schedule, scorer_shape(self.adapter, self.model, layout.visual))
        held = kv_cache_bytes(
            cost.shape, schedule, generated=generated, batch=regime.batch, value_bytes=self.model.dtype.itemsize
        )
        return Side(cost.prefill_macs(schedule, scorers), cost.decode_macs(schedule, max(0, generated - 1)), held)

    def _measured(self, row: RegimeRow) -> RegimeRow:
        needed, left = self._least_bytes(row), available_bytes(self.model.device)
        if needed > left:
            return replace(row, status=f"out of memory: needs more than {needed} bytes, {left} are left")
        try:
            return self._timed(row, RegimeWorks(self.adapter, self.model, self.policy, row.regime))
        except UnsteadyClockError as error:
            return replace(row, status=f"not timed: {error}")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = (str(error).splitlines() or ["the system has none left"])[0]
        gc.collect()
        torch.cuda.empty_cache()
        return replace(row, status=f"out of memory: {reason}")

    def _least_bytes(self, row: RegimeRow) -> int:
        """Return what the prefill holds at once at least: the cache, and one layer's input, output and update."""
        regime, hidden = row.regime, self.adapter.shape(self.model).hidden
        tokens = regime.batch * (regime.visual_tokens + regime.prompt_tokens)
        return row.reference.cache_bytes + 3 * tokens * hidden * int(self.model.dtype.itemsize)

    def _timed(self, row: RegimeRow, works: RegimeWorks) -> RegimeRow:
        with watched(self.model.device) as machine:
            vision, tower, decode = works.vision(), None, None
            if vision is not None:
                tower = self._compare(machine, vision, vision)
            prefill = self._compare(machine, works.prefill(under_policy=False), works.prefill(under_policy=True))
            if row.regime.output_tokens > 1:
                decode = self._compare(machine, works.decode(under_policy=False), works.decode(under_policy=True))
        reference, candidate = (
            replace(side, peak=peak, cache_bytes_found=held)
            for side, (peak, held) in zip(
                (row.reference, row.candidate), (works.memory(False), works.memory(True)), strict=True
            )
        )
        for side in (reference, candidate):
            _check_cache(side)
        compared = {"vision": tower, "prefill": prefill, "decode": decode}
        doubts = (f"{name}: {text}" for name, each in compared.items() if each for text in each.problems)
        problems = (*machine.problems, *doubts)
        phases = _phases(tower, prefill, decode, row.regime)
        measured = replace(row, status="measured", reference=reference, candidate=candidate, problems=problems)
        return _judged(measured, phases, self._kept(row.regime))

    def _compare(self, machine: Watch, reference: Work, candidate: Work) -> Compared:
        stopwatch, works = self.stopwatch or stopwatch_of(self.model.device), {"candidate": candidate}
        return compare(reference, works, stopwatch, self.settings, crowded=machine.crowded)["candidate"]

    def _kept(self, regime: Regime) -> tuple[float, float]:
        """Return which shares of prefill and decode step no policy can save whose first stage is where ours is.

        In the prefill its text tokens go through all layers. A step may save more than its share of macs, since it
        waits for weights and cache to be read: only the layers below are sure to stay.
        """
        cost = prefill_cost(self.adapter, self.model, regime)
        layers, length = len(cost.shape.layers), regime.visual_tokens + regime.prompt_tokens
        first = min((stage.layer for stage in self.policy.stages), default=layers)
        full, least = [length] * layers, [length] * first + [regime.prompt_tokens] * (layers - first)
        generated = max(0, regime.output_tokens - 2)
        prefill = [cost.prefill_macs(tokens) for tokens in (least, full)]
        shares = [each.decoder + each.lm_head for each in prefill]
        step = cost.decode_macs(full, generated)
        return shares[0] / shares[1], (sum(step.decoder_layers[:first]) + step.lm_head) / step.total


def prefill_cost(adapter: Adapter, model: Any, regime: Regime) -> PrefillCost:
    """Return what one row's prompt costs where a batch runs together; what `left_out` names counts as zero."""
    shape, parts = adapter.shape(model), vision_parts(adapter, model)
    if parts is None:
        return PrefillCost(shape, regime.prompt_tokens, vision=0, projector=0)
    tower, projector = parts
    grids = images_of_a_row(adapter, model, projector, regime.visual_tokens)
    # One call of the tower takes the images of all rows, and in some towers they meet each other.
    vision = tower_macs(tower, grids * regime.batch) // regime.batch
    projected = projector_macs(projector, grids)
    return PrefillCost(shape, regime.prompt_tokens, vision, projected)


def _check_cache(side: Side) -> None:
    """Raise ModelError where the cache is not what the formula says, since then its other numbers are in doubt too."""
    if side.cache_bytes_found != side.cache_bytes:
        raise ModelError(
            f"the key-value cache must hold {side.cache_bytes} bytes by the model's shape record",
            value=side.cache_bytes_found,
            remedy="count without running: profile=macs",
        )


def _phases(tower: Compared | None, prefill: Compared, decode: Compared | None, regime: Regime) -> Phases:
    vision, steps = None if tower is None else tower.blocks, max(1, regime.output_tokens - 1)
    return Phases(
        vision, prefill.blocks, None if decode is None else decode.blocks.divided_by(steps), regime.output_tokens
    )


def _judged(row: RegimeRow, phases: Phases, kept: tuple[float, float]) -> RegimeRow:
    speedup = phases.speedup()
    return replace(
        row,
        phases=phases,
        speedup=speedup,
        first_token_speedup=phases.first_token_speedup(),
        decode_speedup=phases.decode_speedup(),
        ceiling=amdahl_ceiling(phases, *kept),
        gaining_outputs=gaining_output_tokens(phases),
        verdict=verdict(speedup, row.problems, phases.worst_and_best()),
    )
