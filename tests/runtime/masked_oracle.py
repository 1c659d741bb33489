"""What a policy must give, without its runtime: what left is hidden from every softmax of a full-length eager run.

What stays is worked out from whole attention maps and hidden states, stage by stage. Where positions are numbered anew
the unpatched model runs on the shortened embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch.nn import functional

from vtw_search import Policy
from vtw_search.conformance.bench import Bench
from vtw_search.operators import BUDGETS
from vtw_search.policies import Stage
from vtw_search.runtime.masking import masked_from
from vtw_search.runtime.slicing import gather_tokens
from vtw_search.scorers import View, find_scorer
from vtw_search.tokens import Grid, Selection, select


class MaskedOracle:
    """One run on one batch; `bench.model` computes eager attention."""

    def __init__(self, bench: Bench, inputs: Any) -> None:
        visual = bench.adapter.visual_mask(bench.model, inputs)
        assert visual is not None
        self.bench, self.original, self.inputs = bench, inputs, dict(inputs)
        self.visual, self.subject, self.real = visual, visual.clone(), inputs["attention_mask"].bool()
        for row, real in enumerate(self.real):
            # The answer is read from the last token, so that it stays.
            self.subject[row, int(real.nonzero()[-1])] = False
        self.left = self.subject
        self.ordinal = visual.long().cumsum(dim=1) - 1
        self.filler: torch.Tensor | None = None
        self.kept: list[torch.Tensor] = []

    @torch.no_grad()
    def logits(self, policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits at the columns that are left, and which of them are no fillers."""
        with ExitStack() as stack:
            for stage in policy.stages:
                if stage.operator == "downsample":
                    self._pool(stage, stack)
                    continue
                stays = torch.zeros_like(self.left) if stage.scorer is None else self._best(stage)
                if stage.position == "recount":
                    self._shorten(~self.left | stays, _embeddings(self.bench, self.inputs))
                else:
                    self._hide(stays, stage.layer, stack)
            logits = self.bench.model(**self.inputs, use_cache=False).logits
        selection = self._selection()
        wanted = torch.ones_like(selection.index, dtype=torch.bool) if selection.filler is None else ~selection.filler
        return gather_tokens(logits, selection.index, -2), wanted

    def _selection(self) -> Selection:
        """Return which columns are left after all stages, and where shorter rows were filled up."""
        text = ~self.subject & self.real
        left = Selection(torch.arange(text.shape[1]).expand(text.shape), self.filler)
        for stays in self.kept:
            there = torch.ones_like(left.index, dtype=torch.bool) if left.filler is None else ~left.filler
            chosen = select((text | stays).gather(1, left.index) & there)
            if chosen is not None:
                left = Selection(left.index.gather(1, chosen.index), chosen.filler)
        return left

    def _best(self, stage: Stage) -> torch.Tensor:
        """Return which visual tokens stay, row by row, with ties to the earlier one."""
        kept = torch.zeros_like(self.left)
        counts = [int(row.sum()) for row in self.left]
        scores = self._scores(stage, counts)
        for row, count in enumerate(counts):
            if count:
                columns = self.left[row].nonzero()[:, 0].tolist()
                order = sorted(columns, key=lambda column, row=row: (-float(scores[row, column]), column))
                kept[row, order[: _wanted(stage, scores[row, order])]] = True
        return kept

    def _scores(self, stage: Stage, counts: list[int]) -> torch.Tensor:
        assert stage.scorer is not None
        name, options = stage.scorer.name, {**_defaults(stage.scorer.name), **stage.scorer.options}
        if name == "uniform":
            return self._uniform(stage, counts)
        if name == "random":
            view = View(self.left, self.real, self.ordinal, None, torch.empty(0))
            return find_scorer("random").score(view, options)
        if name in ("cls_attention", "vision_received", "cls_similarity"):
            return self._of_the_tower(name, options)
        flags = {"output_attentions": True, "output_hidden_states": True, "use_cache": False}
        outputs = self.bench.model(**self.inputs, **flags)
        if name == "text_relevance":
            return self._relevance(outputs.hidden_states[stage.layer])
        maps = outputs.attentions[stage.layer - 1].mean(dim=1)
        if name == "visual_received":
            queries = self.left.to(maps)
            total = torch.einsum("bq,bqk->bk", queries, maps)
            seen = torch.einsum("bq,bqk->bk", queries, (maps > 0).to(maps))
            return total / seen.clamp_min(1) if options["normalise"] else total
        if options["queries"] == "last":
            return maps[:, -1]
        return torch.einsum("bq,bqk->bk", self._instruction().to(maps), maps)

    def _instruction(self) -> torch.Tensor:
        """Return (B, T) bool, true at what is real and stays behind the last visual token that is left."""
        found = torch.zeros_like(self.left)
        for row, visual in enumerate(self.left):
            found[row, int(visual.nonzero()[-1]) + 1 if visual.any() else 0 :] = True
        return found & self.real & ~self.subject

    def _relevance(self, hidden: torch.Tensor) -> torch.Tensor:
        rows = [states[text].mean(dim=0) for states, text in zip(hidden, self._instruction(), strict=True)]
        return functional.cosine_similarity(hidden, torch.stack(rows)[:, None], dim=-1)

    def _uniform(self, stage: Stage, counts: list[int]) -> torch.Tensor:
        scores = torch.zeros(self.left.shape)
        for row, count in enumerate(counts):
            wanted = _wanted(stage, torch.empty(count))
            columns = self.left[row].nonzero()[:, 0]
            scores[row, columns[[int((i + 0.5) * count / wanted) for i in range(wanted)] if count else []]] = 1
        return scores

    def _of_the_tower(self, name: str, options: Any) -> torch.Tensor:
        """Return scores from the tower's own maps, a token's being the mean over its patches."""
        tower = self.bench.adapter.vision_tower(self.bench.model)
        assert tower is not None
        outputs, first = _tower_outputs(self.bench.model, tower.module, self.original), tower.class_tokens
        if name == "cls_similarity":
            layer = tower.feature_layer
            states = outputs.last_hidden_state if layer == -1 else outputs.hidden_states[layer]
            scores = functional.cosine_similarity(states[:, 1:], states[:, :1], dim=-1)
        elif name == "cls_attention":
            maps = outputs.attentions[options["first"] : -1]
            scores = sum((each.mean(dim=1)[:, 0, 1:] for each in maps), torch.zeros(()))
        else:
            each = outputs.attentions[options["layer"]].mean(dim=1)
            scores = each[:, 0, 1:] if options["source"] == "cls" else each[:, first:].sum(dim=1)[:, first:]
        by_row = options.get("layout") == "row"
        flat = [_merged(image, tower.grid, tower.merge, by_row) for image in scores]
        placed = torch.zeros(self.left.shape, dtype=scores.dtype)
        placed[self.visual] = torch.cat(flat)
        return placed

    def _shorten(self, stays: torch.Tensor, embeds: torch.Tensor) -> None:
        """Go on with the embeddings of what stays, as if it had been the prompt: shorter rows are padded."""
        chosen = select(stays & self.real)
        if chosen is None:
            return
        shape = self.visual.shape
        real = torch.ones_like(chosen.index, dtype=torch.bool) if chosen.filler is None else ~chosen.filler
        # Roles of tokens go along; what belongs to pixels and ids does not.
        roles = {
            name: value.gather(1, chosen.index) for name, value in self.inputs.items()
            if isinstance(value, torch.Tensor) and value.shape == shape and name != "input_ids"
        }  # fmt: skip
        self.inputs = {**roles, "attention_mask": real.long(), "inputs_embeds": gather_tokens(embeds, chosen.index, -2)}
        if not real.all():
            # As `generate` numbers a padded prompt.
            self.inputs["position_ids"] = (real.long().cumsum(dim=1) - 1).clamp_min(0)
        self.visual, self.subject = (tokens.gather(1, chosen.index) & real for tokens in (self.visual, self.subject))
        self.left = self.subject
        self.real, self.filler, self.ordinal = real, chosen.filler, self.ordinal.gather(1, chosen.index)

    def _pool(self, stage: Stage, stack: ExitStack) -> None:
        """Make each block of visual tokens a coarser grid, whose cells stand where their first tokens stood."""
        embeds, stays = _embeddings(self.bench, self.inputs), ~self.subject
        grids = self.bench.adapter.grids(self.bench.model, self.original, int(self.visual.sum()))
        assert isinstance(stage.keep, float)
        for row, visual in enumerate(self.visual):
            columns = visual.nonzero()[:, 0]
            while len(columns):
                grid = grids.pop(0)
                block, columns = columns[: grid.tokens], columns[grid.tokens :]
                sides = [max(1, math.floor(side * math.sqrt(stage.keep) + 0.5)) for side in (grid.rows, grid.columns)]
                image = embeds[row, block].T.reshape(-1, grid.rows, grid.columns)
                pooled = functional.adaptive_avg_pool2d(image, sides).flatten(1).T
                corners = [
                    int(block[(i * grid.rows // sides[0]) * grid.columns + j * grid.columns // sides[1]])
                    for i in range(sides[0]) for j in range(sides[1])
                ]  # fmt: skip
                if stage.options.get("mode", "mean") == "mean":
                    embeds[row, corners] = pooled
                stays[row, corners] = True
        if stage.position == "recount":
            self._shorten(stays, embeds)
            return
        stack.callback(self.bench.stack[0].register_forward_pre_hook(_replace(embeds), with_kwargs=True).remove)
        self._hide(stays & self.subject, 0, stack)

    def _hide(self, stays: torch.Tensor, layer: int, stack: ExitStack) -> None:
        """Mask what leaves from `layer` on. Contexts add up: what left before stays hidden."""
        names = self.bench.adapter.layer_arguments
        stack.enter_context(masked_from(self.bench.stack, layer, self.left & ~stays, names))
        self.left = stays
        self.kept.append(stays)


def _wanted(stage: Stage, ranked: torch.Tensor) -> int:
    """Return how many of the tokens with these scores, in falling order, stay."""
    if isinstance(stage.keep, str):
        return BUDGETS[stage.keep](ranked)
    wanted = int(stage.keep * len(ranked) + 0.5) if isinstance(stage.keep, float) else int(stage.keep or 0)
    return max(1, min(wanted, len(ranked)))


def _defaults(scorer: str) -> dict[str, Any]:
    options = find_scorer(scorer).options
    return {name: value[0] if isinstance(value, tuple) else value for name, value in options.items()}


def _merged(scores: torch.Tensor, grid: Grid, merge: int, by_row: bool) -> torch.Tensor:
    table = scores.reshape(grid.rows, grid.columns)
    if by_row:
        table = table.mean(dim=1, keepdim=True).expand_as(table)
    return torch.stack([
        table[row : row + merge, column : column + merge].mean()
        for row in range(0, grid.rows, merge) for column in range(0, grid.columns, merge)
    ])  # fmt: skip


def _tower_outputs(model: Any, tower: torch.nn.Module, inputs: Any) -> Any:
    """Call the tower as the model does, for its maps and states."""
    calls: list[tuple[Any, Any]] = []
    hook = tower.register_forward_pre_hook(lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    model(**inputs, use_cache=False)
    hook.remove()
    ((args, kwargs),) = calls
    return tower(*args, **{**kwargs, "output_attentions": True, "output_hidden_states": True, "return_dict": True})


def _embeddings(bench: Bench, inputs: Any) -> torch.Tensor:
    """Return what enters decoder layer 0."""
    found: list[torch.Tensor] = []
    hook = bench.stack[0].register_forward_pre_hook(
        lambda _, args, kwargs: found.append((args[0] if args else kwargs["hidden_states"]).clone()), with_kwargs=True
    )
    bench.model(**inputs, use_cache=False)
    hook.remove()
    return found[0]


def _replace(hidden: torch.Tensor) -> Callable[[torch.nn.Module, Any, Any], Any]:
    """Return a hook that gives a layer other hidden states."""

    def hook(_: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    return hook
