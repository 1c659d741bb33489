"""Every other image-text-to-text model whose decoder is a stack of self-attention layers.

The answers come from the config and the module tree alone. They are guesses until the conformance check has passed on
the very model, which is what the certificate says.
"""

from __future__ import annotations

from typing import ClassVar

from vtw_search.adapters.deepstack import DeepstackAdapter


class GenericAdapter(DeepstackAdapter):
    """Answers by transformers' own conventions; needs a certificate."""

    needs_certificate: ClassVar[bool] = True
