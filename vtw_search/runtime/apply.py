"""`apply_policy`: run an unmodified model under a policy."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from vtw_search.adapters import Adapter, find_adapter, patched_by
from vtw_search.errors import PolicyError, RuntimeUseError
from vtw_search.facts import ModelFacts
from vtw_search.policies import Certificate, Policy, PolicySet
from vtw_search.runtime.certificates import require_certificate
from vtw_search.runtime.claims import Claim
from vtw_search.runtime.readiness import make_ready
from vtw_search.runtime.removal import TokenRemoval
from vtw_search.runtime.stages import ReadyStage
from vtw_search.runtime.unchosen import UnchosenTask

SUPPORTED_ATTENTION = ("eager", "sdpa")
_active_models: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_entering = threading.Lock()


class ActivePolicy:
    """What `apply_policy` put on a model: one policy at first, and another one per thread on request."""

    def __init__(self, model: nn.Module, adapter: Adapter, policies: Policy | PolicySet, task: str | None) -> None:
        self.facts: ModelFacts = adapter.facts(model)
        self._policies = policies
        self._first = self._ready(policies if isinstance(policies, Policy) else policies.for_task(task))
        self._thread = threading.local()
        self._unchosen = UnchosenTask(policies, task)
        self._removal = TokenRemoval(model, adapter, self._wanted)

    @property
    def policy(self) -> Policy:
        """The policy that the calling thread's next call runs under."""
        return self._chosen[0]

    def use(self, choice: str | Policy) -> None:
        """Choose the policy of the calling thread from its next call of the model on; other threads keep theirs.

        Every step of `generate` is a call. A cache stays with its K: a call under another policy is refused on it.

        Args:
            choice: a task of the policy file, or a policy.

        Raises:
            PolicyError: a task was named and no policy file was applied, or the policy does not fit the model.
        """
        if isinstance(choice, Policy):
            self._thread.chosen = self._ready(choice)
        elif isinstance(self._policies, PolicySet):
            self._thread.chosen = self._ready(self._policies.for_task(choice))
        else:
            remedy = "apply a policy file, or pass the policy itself"
            raise PolicyError("tasks are told apart by a policy file only", value=choice, remedy=remedy)
        self._unchosen.one_has_chosen()

    def mark_visual(self, visual: torch.Tensor | None) -> None:
        """Tell where the visual tokens of the calling thread's next call of the model are.

        Needed only where `inputs_embeds` are passed that image features were merged into already. The mark is used up
        by that one call, whatever its policy.

        Args:
            visual: (B, T) bool, true at visual tokens; None takes back a mark that no call has used up.

        Raises:
            RuntimeUseError: `visual` is something else; the call raises it when its tokens have another shape.
        """
        self._removal.mark_visual(visual)

    @property
    def visual_left(self) -> tuple[torch.Tensor, ...]:
        """Per stage, (B,) how many visual tokens it left in the calling thread's last prefill; empty for keep-all.

        Prefills with visual tokens count; the last token of a prompt always stays, and is not counted.
        """
        return self._removal.visual_left

    @property
    def marked(self) -> torch.Tensor | None:
        """The mark of the calling thread's next call, None without one."""
        return self._removal.marked

    @contextmanager
    def aside(self, policy: Policy, marked: torch.Tensor | None = None) -> Iterator[None]:
        """Run the calling thread under another policy, beside its own calls and without a trace in them."""
        before = vars(self._thread).get("chosen")
        self._thread.chosen = self._ready(policy)
        try:
            with self._removal.aside():
                self._removal.mark_visual(marked)
                yield
        finally:
            vars(self._thread).pop("chosen")
            if before is not None:
                self._thread.chosen = before

    @property
    def _chosen(self) -> tuple[Policy, tuple[ReadyStage, ...]]:
        chosen: tuple[Policy, tuple[ReadyStage, ...]] = getattr(self._thread, "chosen", self._first)
        return chosen

    def _ready(self, policy: Policy) -> tuple[Policy, tuple[ReadyStage, ...]]:
        # Once per choice: every generated token asks for the stages.
        return policy, make_ready(policy, self.facts)

    def _wanted(self) -> tuple[ReadyStage, ...]:
        if "chosen" not in vars(self._thread):
            self._unchosen.warn_once()
        return self._chosen[1]


@contextmanager
def apply_policy(
    model: nn.Module, policies: Policy | PolicySet, task: str | None = None, *, certificate: Certificate | None = None
) -> Iterator[ActivePolicy]:
    """Run `model` under a policy inside a `with` block; the model is as before afterwards, also after an exception.

    Original position ids are kept, so text logits equal those of the full-length run in which the removed tokens are
    masked from layer K on. Returned logits are shorter than the input: address positions from the end.

    Args:
        model: an image-text-to-text model, as `from_pretrained` returns it, or a PEFT model around one.
        policies: one policy, or the content of a policy file.
        task: which policy of the file to take; an unknown task gets the file's default, with a warning.
        certificate: the caller's own of this model. It must hold, and is taken in place of the file's, which is a claim
            that the first prompt with an image has to confirm.

    Raises:
        ModelError: the model's structure is not supported, or its family needs a certificate that it does not have; in
            the block, the first prompt shows that the file's certificate is wrong.
        PolicyError, PolicyFileError: the policy breaks a rule or is for another model.
        RuntimeUseError: a policy is already active on the model, another library has patched or compiled it, or its
            attention implementation is not supported.
    """
    if not isinstance(policies, Policy | PolicySet):
        remedy = "read a file first: apply_policy(model, load_policy(path), task=...)"
        raise PolicyError("policies must be a Policy or a PolicySet", value=type(policies).__name__, remedy=remedy)
    model = unwrapped(model)
    adapter = find_adapter(model)
    if isinstance(policies, PolicySet):
        policies.require_model(adapter.facts(model).fingerprint)
    claimed = None
    if adapter.needs_certificate or certificate is not None:
        offered = policies.certificate if isinstance(policies, PolicySet) else None
        claimed = require_certificate(model, offered, certificate)
    with run_under_policy(model, adapter, policies, task) as active, ExitStack() as stack:
        if claimed is not None:
            Claim(model, adapter, active, claimed).register(stack)
        yield active


@contextmanager
def run_under_policy(
    model: nn.Module, adapter: Adapter, policies: Policy | PolicySet, task: str | None = None
) -> Iterator[ActivePolicy]:
    """As `apply_policy`, without asking whether the adapter's answers were checked: the check itself runs on this."""
    active = ActivePolicy(model, adapter, policies, task)
    _check_use(model, adapter, active.facts)
    with ExitStack() as stack:
        _occupy(model, stack)
        active._removal.register(stack)
        yield active


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the transformers model inside a PEFT model, whose adapters stay in place; other models as they are."""
    base: Any = getattr(model, "get_base_model", None)
    inner: nn.Module = model if base is None else base()
    return inner


def check_policy(policy: Policy, facts: ModelFacts) -> None:
    """Raise PolicyError or UnknownNameError unless the policy keeps the rules and the model can do what it asks."""
    make_ready(policy, facts)


def _occupy(model: nn.Module, stack: ExitStack) -> None:
    with _entering:
        if model in _active_models:
            remedy = "leave the first `with apply_policy(...)` block, or choose with active.use(...) inside it"
            raise RuntimeUseError("one policy at a time may be active on a model", remedy=remedy)
        _active_models.add(model)
    stack.callback(_active_models.discard, model)


def _check_use(model: nn.Module, adapter: Adapter, facts: ModelFacts) -> None:
    if facts.attention not in SUPPORTED_ATTENTION:
        remedy = f"load the model with attn_implementation one of {', '.join(SUPPORTED_ATTENTION)}"
        raise RuntimeUseError("the attention implementation must be supported", value=facts.attention, remedy=remedy)
    layers = adapter.decoder_layers(model)
    patched = patched_by(model, layers)
    if patched is not None:
        remedy = "load the model without the library that replaces its forward"
        raise RuntimeUseError("the model must be unmodified", value=f"{patched}.forward is replaced", remedy=remedy)
    if any(module._compiled_call_impl is not None for module in model.modules()):
        raise RuntimeUseError("a compiled model cannot run under a policy", remedy="do not call model.compile()")
