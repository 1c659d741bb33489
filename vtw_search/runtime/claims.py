"""The certificate of a policy file is a claim: the first prompt with an image holds it against the masking oracle.

It takes two more passes over that prompt for each layer of the policy, once per process, model and attention.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

import torch
from torch import nn

from vtw_search.adapters import Adapter
from vtw_search.errors import ModelError
from vtw_search.facts import ModelFacts
from vtw_search.policies import Certificate, Policy
from vtw_search.runtime.caches import stored_length
from vtw_search.runtime.certificates import record_certificate
from vtw_search.runtime.deviation import deviation, tolerance_of
from vtw_search.runtime.masking import masked_from

# A prompt is longer than the probes that the tolerance is for, so that rounding goes further; a wrong token goes
# further still.
_LONGER, _MOST = 100, 0.3
_RULE = "removing equals masking"
_REMEDY = "check the model here: vtw_search.conformance.certify(model, processor)"
# (attention, K) that were found right in this process.
_held: weakref.WeakKeyDictionary[nn.Module, set[tuple[str, int]]] = weakref.WeakKeyDictionary()


class Active(Protocol):
    """What is asked of an active policy."""

    facts: ModelFacts

    @property
    def policy(self) -> Policy:
        """The policy that the calling thread's next call runs under."""

    @property
    def marked(self) -> torch.Tensor | None:
        """The mark of the calling thread's next call."""

    def aside(self, policy: Policy, marked: torch.Tensor | None) -> AbstractContextManager[None]:
        """Run the calling thread under another policy, without a trace in its own state."""


class Claim:
    """A certificate that came with a policy file, until the model has shown that it is right."""

    def __init__(self, model: nn.Module, adapter: Adapter, active: Active, certificate: Certificate) -> None:
        self.model, self.adapter, self.active, self.certificate = model, adapter, active, certificate
        self.lock, self.thread = threading.Lock(), threading.local()

    def register(self, stack: ExitStack) -> None:
        """Put the hook on; closing `stack` takes it off."""
        handle = self.model.register_forward_pre_hook(self._before, with_kwargs=True, prepend=True)
        stack.callback(handle.remove)

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if getattr(self.thread, "checks", False) or not self._open():
            return
        marked = self.active.marked
        visual = self.adapter.visual_mask(model, kwargs) if marked is None else marked
        if visual is None or not bool(visual.any()):
            return
        with self.lock:
            self._check(visual, kwargs)

    def _open(self) -> list[int]:
        """Return the layers of the thread's policy that nothing has been shown for."""
        facts, shown = self.active.facts, _held.get(self.model, set())
        wanted = {stage.layer or facts.first_layer for stage in self.active.policy.stages}
        return [layer for layer in sorted(wanted) if layer < facts.num_layers and (facts.attention, layer) not in shown]

    def _check(self, visual: torch.Tensor, kwargs: Mapping[str, Any]) -> None:
        cache = self.adapter.layer_arguments.cache
        store = kwargs.get(cache)
        if store is not None and stored_length(store, 0):
            raise ModelError("a policy file's certificate is checked on a prompt from its beginning", remedy=_REMEDY)
        inputs = {**kwargs, cache: None, "use_cache": False, "return_dict": True}
        for layer in self._open():
            try:
                self.thread.checks = True
                found = self._deviation(layer, visual, inputs)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:
                rule = f"a policy file's certificate must be checked on its first prompt, at K = {layer}"
                raise ModelError(rule, value=f"{type(error).__name__}: {error}", remedy=_REMEDY) from error
            finally:
                self.thread.checks = False
            self._judge(layer, found)

    @torch.no_grad()
    def _deviation(self, layer: int, visual: torch.Tensor, inputs: dict[str, Any]) -> float:
        """Return how far the last position's logits are from those of a run that masks from `layer` on."""
        stack = self.adapter.decoder_layers(self.model)
        hidden = visual.clone()
        hidden[:, -1] = False  # the last token of a prompt always stays
        masked = masked_from(stack, layer, hidden, self.adapter.layer_arguments)
        with self.active.aside(Policy.keep_all(), None), masked:
            expected = self.model(**inputs).logits[:, -1]
        with self.active.aside(Policy.withdraw(layer), visual):
            found = self.model(**inputs).logits[:, -1]
        return deviation(found, expected)

    def _judge(self, layer: int, found: float) -> None:
        limit = min(_LONGER * tolerance_of(self.model.dtype), _MOST)  # type: ignore[arg-type]
        if found <= limit:
            _held.setdefault(self.model, set()).add((self.active.facts.attention, layer))
            return
        problem = f"{_RULE}: deviation {found:.1e} at K = {layer} on the first prompt is larger than {limit:.0e}"
        record_certificate(self.model, self.certificate.model_copy(update={"failed": problem}))
        rule = "the certificate of a policy file must be right"
        raise ModelError(rule, value=self.certificate.model_type, remedy=f"{problem}; no policy can run on this model")
