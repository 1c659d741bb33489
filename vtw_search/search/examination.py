"""The splits that nothing is chosen by: tests on confirmation, numbers of the holdout. Every look is counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from vtw_search.policies import Policy
from vtw_search.records import Measurement
from vtw_search.results import Confirmation, Row
from vtw_search.search.aggregate import with_gap
from vtw_search.search.confirmation import confirm
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.limits import Limits
from vtw_search.search.study import CONFIRMATION, SEARCH_SPLITS, Study


class Examination:
    """Examines the policies of one study; a look is noted before it happens, so that a killed one has been counted."""

    def __init__(self, study: Study, ledger: HoldoutLedger, search: str) -> None:
        self.study, self.ledger, self.search = study, ledger, search

    def confirm(self, rows: Sequence[Row], limits: Limits) -> Confirmation | None:
        """Test the finalists among judged rows on the confirmation split; None if no confidence is asked for."""
        if limits.confidence is None:
            return None
        frame = self.study.store(SEARCH_SPLITS).samples()
        samples = self.study.splits["confirmation"]
        return confirm(
            rows, frame, limits, samples, self.study.measure_confirmation, partial(self.look_to_test, limits)
        )

    def holdout(self, measurement: Measurement) -> dict[str, Any]:
        """Return a policy's numbers on the holdout, their gap to the search's, and how often that holdout was used."""
        task, policy = self.study.settings.task, measurement.policy
        if not self.study.is_known("holdout", [policy]):
            self.ledger.add(self.search, task, self.study.splits.digest("holdout"), policy.label())
        numbers = with_gap(self.study.measure_holdout(policy), measurement)
        return {**numbers, "evaluations_of_this_holdout": self.ledger.count(task)}

    def look_to_test(self, limits: Limits, policies: Sequence[Policy]) -> int:
        """Note a test, unless it is the same as before; other limits are another test, and so is another model."""
        task, digest = self.study.settings.task, self.study.splits.digest("confirmation")
        labels = ", ".join(policy.label() for policy in policies)
        under, records = _digest_of(limits.as_dict()), _digest_of(self.study.identity(CONFIRMATION))
        if policies and not self.ledger.tested(task, digest, labels, under=under, records=records):
            self.ledger.add(self.search, task, digest, labels, "confirmation", under=under, records=records)
        return self.ledger.count(task, "confirmation")


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
