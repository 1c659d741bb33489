"""How a candidate can fail: its records then say why, and the search goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from transformers import LogitsProcessor

from vtw_search.errors import PolicyError, RuntimeUseError
from vtw_search.records import OUT_OF_MEMORY, TIMED_OUT


class CandidateError(Exception):
    """A candidate has no numbers on this batch, and why."""


@contextmanager
def out_of_memory_is_a_failure() -> Iterator[None]:
    """Turn every way in which memory runs out, on a GPU and on a CPU, into a CandidateError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CandidateError(OUT_OF_MEMORY) from error
    except RuntimeError as error:
        # torch's CPU allocator has no error class of its own.
        if "not enough memory" not in str(error):
            raise
        raise CandidateError(OUT_OF_MEMORY) from error


@contextmanager
def failures_of_a_candidate() -> Iterator[None]:
    """Turn what the model cannot do for a policy, and running out of memory, into a CandidateError.

    What no policy can do fails keep-all as well, which a search does not go on without.
    """
    try:
        with out_of_memory_is_a_failure():
            yield
    except (PolicyError, RuntimeUseError, NotImplementedError) as error:
        raise CandidateError(f"not supported: {error}") from error


class Deadline:
    """Until when work must be done; it is looked at between layers and between tokens.

    Args:
        seconds: from now on; None is never.
        clock: in seconds.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock, self._began = seconds, clock, clock()

    def check(self) -> None:
        """Raise CandidateError when it has passed."""
        if self._seconds is not None and self._clock() - self._began > self._seconds:
            raise CandidateError(f"{TIMED_OUT} after {self._seconds:g} s")


class Watch(LogitsProcessor):
    """Looks at a deadline before every token of `generate`."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Change nothing; CandidateError when the deadline has passed."""
        self._deadline.check()
        return scores
