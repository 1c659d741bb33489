"""The three counts of `profilers.audit` on a model: its decoder layers, its tower's layers, its projector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from profilers.audit import AuditRow, audit_rows
from profilers.closed_form import head_macs, layer_parts, patch_macs, projector_macs, tower_layer_macs
from profilers.dispatched import dispatched_macs
from profilers.macs import count_macs
from profilers.shapes import Grid, LayerShape, ModelShape, ProjectorShape, TowerShape
from vtw_search.adapters import Adapter, tower_layers
from vtw_search.runtime.capture import Call, captured

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class _Watched:
    """A module of the vision side and what the record says its calls cost.

    `macs` is None for a module that no record describes: then the two counters check each other.
    """

    module: nn.Module
    macs: int | None
    dead: bool = False


@dataclass(frozen=True)
class Audit:
    """What was counted in three ways.

    Attributes:
        rows: the counts side by side.
        not_counted: calls per operator that was left out by name.
        outside: macs, as torch saw them run, that are spent outside the decoder layers and the language head.
    """

    rows: tuple[AuditRow, ...]
    not_counted: Mapping[str, int]
    outside: int


def audit_model(adapter: Adapter, model: Any, inputs: Inputs, *, every_layer: bool = True) -> Audit:
    """Count one prefill of a loaded model in three ways, module by module.

    Args:
        adapter: of the model's family.
        model: on any device but meta.
        inputs: of one forward call with images, batch size 1.
        every_layer: whether each decoder layer is counted; otherwise one of each shape.

    Returns:
        Rows of decoder layers and their attention, and of every part of the vision side.
    """
    shape, stack = adapter.shape(model), list(adapter.decoder_layers(model))
    chosen = range(len(stack)) if every_layer else first_of_each(shape.layers)
    vision = list(_vision_side(adapter, model, shape, inputs))
    watched = [*(stack[number] for number in chosen), *(each.module for each in vision)]
    with captured(watched) as calls, torch.no_grad():
        model(**inputs, use_cache=False)
    with experts_that_torch_counts(model):
        ran = dispatched_macs(model, **inputs, use_cache=False)
    names = {module: name for name, module in model.named_modules()}
    visual, found = _visual_tokens(adapter, model, inputs), Findings(ran, str(model.device))
    for number, made in zip(chosen, calls, strict=False):
        found.add_layer(names[stack[number]], stack[number], shape.layers[number], made[0], visual)
    for each, made in zip(vision, calls[len(chosen) :], strict=True):
        if made:
            found.add_module(names[each.module], each.module, each.macs, made, each.dead)
    inner = [*stack, model.get_output_embeddings()]
    return found.audit(ran[""] - sum(ran.get(names[module], 0) for module in inner))


def first_of_each(layers: Sequence[LayerShape]) -> list[int]:
    """Return the number of the first layer of every shape."""
    return sorted({shape: number for number, shape in reversed(list(enumerate(layers)))}.values())


class Findings:
    """Collects rows while modules are counted.

    Args:
        ran: dispatched macs of the model's modules by name.
        device: where the calls are made.
    """

    def __init__(self, ran: Mapping[str, int], device: str) -> None:
        self.ran, self.device = ran, device
        self._rows: list[AuditRow] = []
        self._not_counted: Counter[str] = Counter()

    def add_layer(self, name: str, layer: nn.Module, record: LayerShape, call: Call, visual: int = 0) -> None:
        """Count one call of a layer whose `visual` tokens are visual, and its attention in it."""
        args, kwargs = call
        tokens = (args[0] if args else kwargs["hidden_states"]).shape[-2]
        parts = layer_parts(record, tokens, visual=visual)
        expected = {"": sum(parts.values()), record.attention.module: parts["attention"]}
        counted = count_macs(layer, *args, **kwargs)
        self._not_counted.update(counted.not_counted)
        found = {inner: self.ran.get(f"{name}.{inner}".rstrip("."), 0) for inner in expected}
        self._rows += audit_rows(name, expected, {**counted.by_module, "": counted.total}, found, self.device)

    def add_module(
        self, name: str, module: nn.Module, macs: int | None, calls: Sequence[Call] | None, dead: bool
    ) -> None:
        """Count all calls of a module together.

        Args:
            name, module: in the model.
            macs: what the record says; None where there is none.
            calls: of the module; None where they cannot be traced.
            dead: whether nothing reads its output.
        """
        counts = [count_macs(module, *args, **kwargs) for args, kwargs in calls or ()]
        for counted in counts:
            self._not_counted.update(counted.not_counted)
        traced = None if calls is None else {"": sum(counted.total for counted in counts)}
        self._rows += audit_rows(name, {"": macs}, traced, {"": self.ran.get(name, 0)}, self.device, dead)

    def audit(self, outside: int) -> Audit:
        """Return what was found."""
        return Audit(tuple(self._rows), dict(self._not_counted), outside)


def _vision_side(adapter: Adapter, model: Any, shape: ModelShape, inputs: Inputs) -> Iterator[_Watched]:
    if shape.tower is None or shape.projector is None:
        yield from _without_record(adapter, model, shape)
    if shape.tower is None:
        return
    for tower, grids in adapter.towers(model, inputs):
        yield from _parts_of_tower(shape.tower, tower, grids)
    if shape.projector is not None:
        grids = adapter.projector_grids(model, inputs)
        for name, part in adapter.projector_parts(model).items():
            yield from _parts_of_projector(shape.projector, name, part, grids)


def _without_record(adapter: Adapter, model: Any, shape: ModelShape) -> Iterator[_Watched]:
    described = [model.get_decoder(), *([] if shape.tower is None else [adapter.tower(model)])]
    within = {module for part in described for module in part.modules()}
    for module in getattr(model, "model", model).children():
        if module not in within and not within & set(module.modules()):
            yield _Watched(module, None)


def _parts_of_tower(record: TowerShape, tower: nn.Module, grids: Sequence[Grid]) -> Iterator[_Watched]:
    modules = dict(tower.named_modules())
    yield _Watched(modules[record.patch.name], patch_macs(record, grids))
    for number, (layer, macs) in enumerate(zip(tower_layers(tower), tower_layer_macs(record, grids), strict=True)):
        yield _Watched(layer, macs, number in record.dead_layers)
    if record.head is not None:
        yield _Watched(modules["head"], head_macs(record, grids), dead=True)


def _parts_of_projector(
    record: ProjectorShape, name: str, part: nn.Module, grids: Sequence[Grid]
) -> Iterator[_Watched]:
    # A list of modules is not called itself; its members are.
    members = part.named_children() if isinstance(part, nn.ModuleList) else [("", part)]
    for inner, module in members:
        prefix = f"{name}.{inner}".rstrip(".")
        own = tuple(each for each in record.projections if f"{each.name}.".startswith(f"{prefix}."))
        yield _Watched(module, projector_macs(replace(record, projections=own), grids))


def _visual_tokens(adapter: Adapter, model: Any, inputs: Inputs) -> int:
    mask = adapter.expert_visual_mask(model, inputs)
    return 0 if mask is None else int(mask.sum())


@contextmanager
def experts_that_torch_counts(model: Any) -> Iterator[None]:
    """Let mixtures of experts compute by batched products: torch's counter knows no grouped one (torch 2.13)."""
    with ExitStack() as stack:
        for config in (module.config for module in model.modules() if hasattr(module, "config")):
            # Modules share configs: one that was switched already is not switched back twice.
            if getattr(config, "_experts_implementation", None) == "grouped_mm":
                config._experts_implementation = "batched_mm"
                stack.callback(setattr, config, "_experts_implementation", "grouped_mm")
        yield
