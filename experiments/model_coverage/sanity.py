"""Is a tiny model worth testing on? `python -m experiments.model_coverage.sanity <model_type> ...`

It must run under eager and sdpa, alone and in a ragged left-padded batch, give logits that vary and depend on the
image, and generate the same with and without a cache. Nothing here knows the runtime.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from experiments.model_coverage.families import find
from experiments.model_coverage.tiny import Inputs, TinyFamily, reductions


def last_logits(model: Any, inputs: Inputs, count: int = 3) -> torch.Tensor:
    """Return the logits of the last `count` positions."""
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[:, -count:].float()


def check(family: TinyFamily) -> None:
    """Print what was found; AssertionError when the model is of no use as a test."""
    config = family.config()
    text = config.get_text_config()
    assert text.num_hidden_layers >= 6
    print(f"{family.model_type}: {len(reductions(config))} settings differ from the default config")
    single = [(kind,) for kind in family.kinds]
    batch = [("small",) * family.max_images, (family.kinds[-1],), ()] if family.text_only else [("small",), (family.kinds[-1],)]
    answers = {}
    for attention in ("eager", "sdpa"):
        model = family.build(attention)
        for row in single:
            inputs = family.inputs([row])
            first = last_logits(model, inputs)
            other = dict(inputs)
            changed = family.inputs([row], seed=1)
            for name, value in changed.items():
                if value.is_floating_point() and name not in ("attention_mask",):
                    other[name] = value
            spread, effect = first.std(), (last_logits(model, other) - first).abs().max()
            print(f"  {attention} {row}: {inputs['input_ids'].shape[1]} tokens, spread {spread:.3f}, image effect {effect:.4f}")
            assert torch.isfinite(first).all() and spread > 0.1 and effect > 1e-2 * spread
            answers.setdefault(row, []).append(first)
        together = family.inputs(batch)
        logits = last_logits(model, together)
        if family.text_only:
            alone = last_logits(model, {k: v[2:3, together["attention_mask"][2].bool()] for k, v in together.items()
                                        if k in ("input_ids", "attention_mask") or k.endswith("token_type_ids")})
            print(f"  {attention} text-only row alone against in the batch: {(alone - logits[2:3]).abs().max() / logits.std():.1e}")
        for row in (single[0], *([batch[0]] if family.max_images > 1 else [])):
            inputs = family.inputs([row])
            arguments = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
            cached = model.generate(**inputs, **arguments)
            uncached = model.generate(**inputs, **arguments, use_cache=False)
            assert torch.equal(cached, uncached), (cached[:, -6:], uncached[:, -6:])
    for row, (eager, sdpa) in answers.items():
        print(f"  {row}: eager against sdpa {(eager - sdpa).abs().max() / eager.std():.1e}")
    print(f"  ok; layers {text.num_hidden_layers}, types {sorted(set(getattr(text, 'layer_types', None) or ['full_attention']))}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        check(find(name))
