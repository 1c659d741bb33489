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
from vtw_search.search.ledger import HoldoutLedger, Look
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
        names, known = self.study.names_of_records(HOLDOUT, [policy]), self.study.is_known("holdout", [policy])
        if not (known and policy.is_keep_all):
            # An entry of before records were noted may be of another model, unless this one's are there.
            self.ledger.look(self._look("holdout", policy.label(), names), [*names, *([None] if known else [])])

    def look_to_test(self, limits: Limits, policies: Sequence[Policy]) -> int:
        """Note a test, unless it is the same as before, and return which one of these samples it is.

        Other limits are another test, and so is another model. Without policies nothing is tested.
        """
        if not policies:
            return 0
        names, labels = self.study.names_of_records(CONFIRMATION, policies), [policy.label() for policy in policies]
        look = self._look("confirmation", ", ".join(labels), names, digest_of(limits.as_dict()))
        return self.ledger.test(look, names)

    def _look(self, split: str, policy: str, names: Sequence[str], under: str | None = None) -> Look:
        return Look(
            search=self.search, task=self.study.settings.task, split=split, samples=self.study.splits.digest(split),
            policy=policy, under=under, records=names[0],
        )  # fmt: skip
