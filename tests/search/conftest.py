"""What tests of stores share."""

from __future__ import annotations

from typing import Any

import pytest

from vtw_search.search import study as study_module


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many policies each batch that was run had."""
    found, before = list[int](), study_module.OnePassEvaluator

    class Counting(before):
        def records_of(self, policies: Any) -> Any:
            found.append(len(policies))
            return super().records_of(policies)

    monkeypatch.setattr(study_module, "OnePassEvaluator", Counting)
    return found
