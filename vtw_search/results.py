"""What a study found: its measurements with the judgement of the limits. Read by reports and trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vtw_search.policies import Policy
from vtw_search.records import Measurement


@dataclass(frozen=True)
class Judgement:
    """One limit on one measurement.

    Attributes:
        limit: what is bounded, for example `kl_nats` or `accuracy_drop`.
        bound: the largest value that is allowed.
        value: the point estimate.
        low, high: its 95 % interval, shown but not judged.
        text: the same for people, such as `kl_nats 0.0312 > 0.01`.
    """

    limit: str
    bound: float
    value: float
    low: float
    high: float
    text: str

    @property
    def excess(self) -> float:
        """Value minus bound; the limit holds when this is at most 0."""
        return self.value - self.bound

    @property
    def holds(self) -> bool:
        """Whether the point estimate is within the bound."""
        return self.excess <= 0


@dataclass(frozen=True)
class Row:
    """A measurement and what the limits say of it.

    Attributes:
        measurement: the numbers.
        judgements: one per limit; empty for a measurement that failed. Of one that was stopped early, only the limits
            on quality that it was measured for.
        untimed: why the times that limits or the objective need could not be taken; None where nothing is missing.
        on_front: feasible, and no other feasible row is at least as good in accuracy and macs and better in one.
        chosen: this is the study's answer.
    """

    measurement: Measurement
    judgements: tuple[Judgement, ...]
    on_front: bool = False
    chosen: bool = False
    untimed: str | None = None

    @property
    def feasible(self) -> bool:
        """Whether every limit holds; never for what failed, was stopped early or lacks a time that is needed."""
        measured = self.measurement.complete and self.untimed is None
        return measured and all(judgement.holds for judgement in self.judgements)

    @property
    def status(self) -> str:
        """`feasible`, the limits that failed, or why there are no numbers or not all of them."""
        own = self.measurement
        if own.failure is not None:
            return f"failed: {own.failure}"
        if own.stopped is not None:
            return f"raced out after {own.calibration_samples} + {own.selection_samples} samples: {own.stopped}"
        broken = [judgement.text for judgement in self.judgements if not judgement.holds]
        return "; ".join([*broken, *([] if self.untimed is None else [self.untimed])]) or "feasible"


@dataclass(frozen=True)
class Bounded:
    """One limit on one finalist, on samples that nothing was chosen by.

    Attributes:
        limit: what is bounded, with its slice, such as `accuracy_drop[digits=4]`.
        bound: the largest value that is allowed.
        value: the estimate.
        upper: its upper confidence bound, which decides.
        images: independent images behind it.
        method: how the bound was made.
    """

    limit: str
    bound: float
    value: float
    upper: float
    images: int
    method: str

    @property
    def holds(self) -> bool:
        """Whether the limit holds with the stated confidence."""
        return self.upper <= self.bound

    @property
    def text(self) -> str:
        """The test for people, such as `accuracy_drop 0.01, at most 0.021 > 0.02`."""
        return f"{self.limit} {self.value:.3g}, at most {self.upper:.3g} {'<=' if self.holds else '>'} {self.bound:g}"


@dataclass(frozen=True)
class Finalist:
    """A candidate that was tested.

    Attributes:
        policy: which.
        tests: one per limit; empty if it could not be measured.
        failure: why it could not be measured, or None.
    """

    policy: Policy
    tests: tuple[Bounded, ...]
    failure: str | None = None

    @property
    def passed(self) -> bool:
        """Whether every limit holds with the stated confidence."""
        return self.failure is None and all(test.holds for test in self.tests)

    @property
    def text(self) -> str:
        """What the tests say, the broken ones alone if there are any."""
        broken = [test.text for test in self.tests if not test.holds]
        return self.failure or "; ".join(broken or [test.text for test in self.tests])

    @property
    def outcome(self) -> str:
        """Passed or failed, and what the tests say."""
        return f"{'passed' if self.passed else 'failed'}: {self.text}"


@dataclass(frozen=True)
class Confirmation:
    """The finalists of a study, tested in a fixed sequence until one failed.

    Attributes:
        level: confidence of every bound, such as 0.95.
        samples, images: size of the confirmation split.
        looks: which test of these samples this was, in this `runs` folder. The level is that of one.
        finalists: those that were tested, the safest first.
        untested: labels of those after the first failure.
    """

    level: float
    samples: int
    images: int
    looks: int
    finalists: tuple[Finalist, ...]
    untested: tuple[str, ...] = ()

    @property
    def winner(self) -> Policy | None:
        """The last policy that passed; None if not even the safest did."""
        passed = [finalist.policy for finalist in self.finalists if finalist.passed]
        return passed[-1] if passed else None

    @property
    def repeated(self) -> str:
        """What a reader has to know of a split that was tested on before, with a mark in front; nothing the first time.

        Every further test, of other policies or under other limits, is another chance for a wrong one to pass.
        """
        return "" if self.looks <= 1 else f"; test {self.looks} on this split, the level is that of one"

    def as_dict(self) -> dict[str, Any]:
        """Return what files show: the winner's tests, and how the others fared."""
        tests = next((each.tests for each in self.finalists if each.policy == self.winner), ())
        outcomes = {each.policy.label(): each.outcome for each in self.finalists}
        return {
            "level": self.level,
            "samples": self.samples,
            "images": self.images,
            "looks_at_this_split": self.looks,
            "tests": {test.limit: {k: v for k, v in asdict(test).items() if k != "limit"} for test in tests},
            "finalists": outcomes | dict.fromkeys(self.untested, "not tested, after a failure"),
        }


@dataclass(frozen=True)
class Baseline:
    """A baseline beside the chosen policy.

    Attributes:
        row: its measurement.
        advantage: accuracy of the chosen policy minus the baseline's, paired by sample of the selection split.
        low, high: the 95 % interval of the advantage.
    """

    row: Row
    advantage: float
    low: float
    high: float


@dataclass(frozen=True)
class RacingResult:
    """What racing did in a study.

    Attributes:
        confidence: a candidate within all of its limits is stopped with probability 1 - confidence at most.
        stopped, candidates: how many of how many were stopped early.
        branch_work_saved: share of the candidates' layer-tokens that was not needed.
        work_saved: the same with the reference passes included.
    """

    confidence: float
    stopped: int
    candidates: int
    branch_work_saved: float
    work_saved: float

    @property
    def text(self) -> str:
        """The result for people."""
        saved = f"saved {self.branch_work_saved:.0%} of the branch work, {self.work_saved:.0%} of all layer-tokens"
        risk = f"a candidate within its limits is stopped with probability {1 - self.confidence:.2g} at most"
        return f"racing stopped {self.stopped} of {self.candidates} candidates early and {saved}; {risk}"


@dataclass(frozen=True)
class StudyResult:
    """One task of a search.

    Attributes:
        task: its name.
        rows: keep-all first, then by the layers of their stages.
        limits: what was asked for, as in the policy file.
        chosen: the row of the policy that is exported.
        verdict: one sentence that says what was chosen and why.
        holdout: the chosen policy's numbers on the holdout split, with sample counts; empty if it was not run.
        identity: the settings that identify the measurements.
        records: folder of the copied records.
        confirmation: the tests of the finalists; None if the limits ask for no confidence.
        baselines: what the chosen policy has to beat; empty for keep-all.
        noise: per variation of the run (dtype, attention, batch), the KL that it causes without any policy.
        policy_noise: the same under the chosen policy; empty for keep-all.
        racing: what racing saved; None without it.
    """

    task: str
    rows: tuple[Row, ...]
    limits: Mapping[str, Any]
    chosen: Row
    verdict: str
    holdout: Mapping[str, Any]
    identity: Mapping[str, Any]
    records: str
    confirmation: Confirmation | None = None
    noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    policy_noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()
    racing: RacingResult | None = None
