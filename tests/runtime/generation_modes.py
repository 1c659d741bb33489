"""Ways to generate, each with the plain way that must give the same tokens, and the policies of the tables."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from experiments.model_coverage.families import find
from experiments.model_coverage.probes import ragged_rows
from vtw_search import Policy, Stage
from vtw_search.adapters import find_adapter
from vtw_search.conformance import Probe
from vtw_search.conformance.bench import Bench
from vtw_search.errors import RuntimeUseError
from vtw_search.operators import OPERATORS, Operator
from vtw_search.policies import ScorerChoice
from vtw_search.scorers import SCORERS

Inputs = dict[str, torch.Tensor]
LAYER, STEPS = 3, 4
KEEP = {"nothing": None, "share": 0.5, "any": 0.5}


def policies() -> Iterator[Policy]:
    """Yield a policy per operator and, where it ranks, per scorer; stages that may be followed are, too."""
    for operator in OPERATORS.values():
        scorers = [scorer.name for scorer in SCORERS.values() if _fits(operator, scorer.reads)]
        for scorer in scorers if operator.ranks else [None]:
            first = Stage(
                site=operator.site, layer=0 if operator.site == "vision" else LAYER, operator=operator.name,
                keep=KEEP[operator.keeps], scorer=ScorerChoice(name=scorer) if scorer else None,
            )  # fmt: skip
            yield Policy(stages=(first,))
        if operator.may_be_followed:
            yield Policy(stages=(first, Stage(layer=LAYER + 2, operator="withdraw")))


def _fits(operator: Operator, reads: str) -> bool:
    return not (operator.site == "vision" and reads == "attention")


class Case:
    """A tiny model in double precision, so that no near tie decides, with a prompt whose end repeats itself."""

    def __init__(self, name: str) -> None:
        family = find(name).in_double()
        self.model: Any = family.build(dtype=torch.float64)
        self.other: Any = family.build(dtype=torch.float64, seed=1)
        for model in (self.model, self.other):
            # Where text is loud, the answer hardly depends on the image.
            model.get_input_embeddings().weight.data *= 0.05
            model.generation_config.num_assistant_tokens = 3
            model.generation_config.num_assistant_tokens_schedule = "constant"
        self.adapter = find_adapter(self.model)
        self.one = self._repeating(family.inputs([("small",)]))
        self.batch = family.inputs(ragged_rows(family))
        self.ends = self._cut(family.inputs([("small",)], words=0))
        config = self.model.config
        names = [name for modality in self.adapter.modalities for name in modality.token_settings]
        self.banned = [getattr(config, name) for name in names if getattr(config, name, None) is not None]

    def generate(self, inputs: Inputs, **arguments: Any) -> torch.Tensor:
        """Return what is generated behind the prompt, greedily unless told otherwise, without placeholders."""
        given = {"max_new_tokens": STEPS, "do_sample": False, "suppress_tokens": self.banned, **arguments}
        torch.manual_seed(5)
        output: torch.Tensor = self.model.generate(**inputs, **given)
        return output[:, 0 if "inputs_embeds" in inputs else inputs["input_ids"].shape[1] :]

    def bench(self, inputs: Inputs) -> Bench:
        """Return what the masked oracle runs on, a model with eager attention."""
        model = copy.deepcopy(self.model)
        model.set_attn_implementation("eager")
        return Bench(model, self.adapter, [Probe("inputs", inputs)], 1e-5)

    @staticmethod
    def _repeating(inputs: Inputs) -> Inputs:
        words = inputs["input_ids"][:, -3:]
        return {**inputs, "input_ids": torch.cat([inputs["input_ids"][:, :-6], words, words], dim=1)}

    def _cut(self, inputs: Inputs) -> Inputs:
        """Cut a prompt behind its last visual token."""
        visual = self.adapter.visual_mask(self.model, inputs)
        assert visual is not None
        whole, last = visual.shape, int(visual[0].nonzero()[-1]) + 1
        return {name: value[:, :last] if value.shape == whole else value for name, value in inputs.items()}


def repainted(inputs: Inputs, seed: int = 9) -> Inputs:
    """Return the inputs with other pictures."""
    generator = torch.Generator().manual_seed(seed)
    other = {
        name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in inputs.items() if value.is_floating_point()
    }  # fmt: skip
    return {**inputs, **other}


def padded(inputs: Inputs, left: int, right: int) -> Inputs:
    """Return the inputs with padding at either end of every row."""
    whole = inputs["input_ids"].shape
    return {
        name: functional.pad(value, (left, right)) if value.shape == whole else value for name, value in inputs.items()
    }


Way = Callable[[Case, Inputs], torch.Tensor]


def by(**arguments: Any) -> Way:
    """Return a way to generate with these arguments."""
    return lambda case, inputs: case.generate(inputs, **arguments)


@dataclass(frozen=True)
class Mode:
    """A way to generate: `found` must give the tokens of `expected`.

    Attributes:
        inputs: name of the case's inputs.
        in_parts: whether prompts come in several calls, where a stage that needs the whole prompt refuses.
    """

    found: Way
    expected: Way
    inputs: str = "one"
    in_parts: bool = False


def in_chunks(size: int) -> Way:
    """Return a way to generate whose prefill comes in chunks."""
    return by(prefill_chunk_size=size)


def embedded(case: Case, inputs: Inputs) -> torch.Tensor:
    """Pass embeddings of the ids, pixels beside them."""
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    return case.generate({**rest, "inputs_embeds": case.model.get_input_embeddings()(inputs["input_ids"])})


def second_turn(**arguments: Any) -> Way:
    """Return a way to generate on the cache of a first turn, whose words are the prompt's last ones again."""

    def generate(case: Case, inputs: Inputs) -> torch.Tensor:
        first = case.model.generate(
            **inputs, max_new_tokens=2, do_sample=False, suppress_tokens=case.banned, return_dict_in_generate=True
        )
        ids = torch.cat([first.sequences, inputs["input_ids"][:, -4:]], dim=1)
        turn = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "past_key_values": first.past_key_values}
        return case.generate(turn, **arguments)

    return generate


def by_hand(cached: bool) -> Way:
    """Return a loop that calls the model itself."""

    def loop(case: Case, inputs: Inputs) -> torch.Tensor:
        given, past, found = dict(inputs), None, []
        for _ in range(STEPS):
            output = case.model(**given, past_key_values=past, use_cache=cached)
            past = output.past_key_values if cached else None
            scores = output.logits[:, -1].clone()
            scores[:, case.banned] = -torch.inf
            found.append(scores.argmax(dim=-1, keepdim=True))
            if cached:
                given = {"input_ids": found[-1]}
            else:
                longer = padded(given, 0, 1)
                given = {**longer, "input_ids": torch.cat([given["input_ids"], found[-1]], dim=1)}
                given["attention_mask"] = torch.ones_like(given["input_ids"])
        return torch.cat(found, dim=1)

    return torch.no_grad()(loop)


def first_token(case: Case, inputs: Inputs) -> torch.Tensor:
    """Return the first of several tokens."""
    return case.generate(inputs)[:, :1]


def padded_left(case: Case, inputs: Inputs) -> torch.Tensor:
    """Pad before the prompt."""
    return case.generate(padded(inputs, 5, 0))


def assisted(same: bool) -> Way:
    """Return a way to generate whose drafts come from the model itself, or from another one."""
    return lambda case, inputs: case.generate(inputs, assistant_model=case.model if same else case.other)


BEAMS, SAMPLING = {"num_beams": 3}, {"do_sample": True, "temperature": 0.7}
PLAIN, BEAM_SEARCH, SAMPLED, TWO_TURNS = by(), by(**BEAMS), by(**SAMPLING), second_turn()
MODES = {
    "no cache": Mode(by(use_cache=False), PLAIN, "batch"),
    "sampling without a cache": Mode(by(**SAMPLING, use_cache=False), SAMPLED, "batch"),
    "beams without a cache": Mode(by(**BEAMS, use_cache=False), BEAM_SEARCH, "batch"),
    "several samples each": Mode(
        by(**SAMPLING, num_return_sequences=2, use_cache=False), by(**SAMPLING, num_return_sequences=2), "batch"
    ),
    "another model assists": Mode(assisted(same=False), PLAIN),
    "the model assists itself": Mode(assisted(same=True), PLAIN),
    "prompt lookup": Mode(by(prompt_lookup_num_tokens=3), PLAIN),
    "chunks of three": Mode(in_chunks(3), PLAIN, in_parts=True),
    "batch in chunks": Mode(in_chunks(5), PLAIN, "batch", in_parts=True),
    "a chunk that holds all": Mode(in_chunks(1000), PLAIN),
    "padding on the left": Mode(padded_left, PLAIN),
    "embeddings": Mode(embedded, PLAIN),
    "one token": Mode(by(max_new_tokens=1, use_cache=False), first_token, "batch"),
    "second turn in chunks": Mode(second_turn(prefill_chunk_size=2), TWO_TURNS),
    "own loop": Mode(by_hand(cached=True), PLAIN),
    "own loop without a cache": Mode(by_hand(cached=False), PLAIN),
}
AT_END = {name: replace(MODES[name], inputs="ends") for name in ("no cache", "another model assists", "prompt lookup")}


def outcomes(case: Case, modes: Mapping[str, Mode]) -> dict[str, str]:
    """Return what became of the modes: `equal`, `differs`, or why one was refused by name, or cannot be."""
    plain = lru_cache(lambda way, inputs: way(case, getattr(case, inputs)))
    return {name: _outcome(case, mode, plain) for name, mode in modes.items()}


def _outcome(case: Case, mode: Mode, plain: Callable[[Way, str], torch.Tensor]) -> str:
    try:
        found = mode.found(case, getattr(case, mode.inputs))
    except (RuntimeUseError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return "equal" if found.equal(plain(mode.expected, mode.inputs)) else "differs"
