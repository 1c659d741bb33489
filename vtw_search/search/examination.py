"""The splits that nothing is chosen by: tests on confirmation, numbers of the holdout. Every look is counted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from vtw_search.policies import Policy
from vtw_search.records import digest_of
from vtw_search.results import Confirmation, Row
from vtw_search.search.aggregate import holdout_numbers, with_gap
from vtw_search.search.confirmation import confirm
from vtw_search.search.evidence import slices_of
from vtw_search.search.judge import judge_holdout
from vtw_search.search.ledger import HoldoutLedger
from vtw_search.search.limits import Limits
from vtw_search.search.study import Study
from vtw_search.search.study_settings import CONFIRMATION, HOLDOUT, SEARCH_SPLITS


class Examination:
    """Examines the policies of one study; a look is noted before it happens, so that a killed one has been counted."""

    def __init__(self, study: Study, ledger: HoldoutLedger, search: str) -> None:
        self.study, self.ledger, self.search = study, ledger, search

    def confirm(self, rows: Sequence[Row], limits: Limits) -> Confirmation | None:
        """Test the finalists among judged rows on the confirmation split; None if no confidence is asked for."""
        if limits.confidence is None:
            return None
        frame = self.study.samples(SEARCH_SPLITS)
        samples = self.study.splits["confirmation"]
        return confirm(
            rows, frame, limits, samples, self.study.measure_confirmation, partial(self.look_to_test, limits)
        )

    def holdout(self, row: Row, limits: Limits) -> dict[str, Any]:
        """Return a policy's numbers on the holdout, their gap to the search's, and how often that holdout was used."""
        task, policy = self.study.settings.task, row.measurement.policy
        self._look_at_holdout(policy)
        frame = self.study.measure_holdout(policy)
        numbers = holdout_numbers(frame, policy)
        if "failure" not in numbers:
            own, kept = (frame[frame["policy"] == each.digest()] for each in (policy, Policy.keep_all()))
            searched = slices_of(self.study.samples(SEARCH_SPLITS)["slices"])
            numbers = with_gap(numbers, row, judge_holdout(limits, own, kept, searched))
        return {**numbers, "evaluations_of_this_holdout": self.ledger.count(task)}

    def _look_at_holdout(self, policy: Policy) -> None:
        """Note a look, unless the numbers were told before: keep-all's with every other policy's.

        That there are records does not say so: the holdout's slices may depend on the policy.
        """
        task, digest, label = self.study.settings.task, self.study.splits.digest("holdout"), policy.label()
        names = self.study.names_of_records(HOLDOUT, [policy])
        records = next((name for name in names if self.ledger.seen(task, digest, label, records=name)), None)
        told = policy.is_keep_all or records is not None
        if not (told and self.study.is_known("holdout", [policy])):
            self.ledger.add(self.search, task, digest, label, records=records or names[0])

    def look_to_test(self, limits: Limits, policies: Sequence[Policy]) -> int:
        """Note a test, unless it is the same as before, and return which one of these samples it is.

        Other limits are another test, and so is another model. Without policies nothing is tested.
        """
        task, digest = self.study.settings.task, self.study.splits.digest("confirmation")
        labels = ", ".join(policy.label() for policy in policies)
        under, names = digest_of(limits.as_dict()), self.study.names_of_records(CONFIRMATION, policies)
        if not policies:
            return 0
        tested = (name for name in names if self.ledger.tested(task, digest, labels, under=under, records=name))
        records = next(tested, None)
        if records is None:
            records = names[0]
            self.ledger.add(self.search, task, digest, labels, "confirmation", under=under, records=records)
        return self.ledger.place(task, digest, labels, under=under, records=records)
