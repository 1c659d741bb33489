"""The splits that nothing is chosen by: tests on confirmation, numbers of the holdout. Every look is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vtw_search.policies import Policy
from vtw_search.records import Measurement
from vtw_search.results import Confirmation, Row
from vtw_search.search.aggregate import with_gap
from vtw_search.search.confirmation import confirm
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.limits import Limits
from vtw_search.search.study import SEARCH_SPLITS, Study


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
        return confirm(rows, frame, limits, samples, self.study.measure_confirmation, self._look_at_confirmation)

    def holdout(self, measurement: Measurement) -> dict[str, Any]:
        """Return a policy's numbers on the holdout, their gap to the search's, and how often that holdout was used."""
        looks = self._look("holdout", [measurement.policy])
        numbers = with_gap(self.study.measure_holdout(measurement.policy), measurement)
        return {**numbers, "evaluations_of_this_holdout": looks}

    def _look_at_confirmation(self, policies: Sequence[Policy]) -> int:
        return self._look("confirmation", policies)

    def _look(self, split: str, policies: Sequence[Policy]) -> int:
        task = self.study.settings.task
        if policies and not self.study.is_known(split, policies):
            labels = ", ".join(policy.label() for policy in policies)
            self.ledger.add(self.search, task, self.study.splits.digest(split), labels, split)
        return self.ledger.count(task, split)
