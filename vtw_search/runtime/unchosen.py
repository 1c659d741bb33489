"""Whether a thread runs under the first policy because it was meant to, or because nobody told it."""

from __future__ import annotations

import threading
import warnings

from vtw_search.errors import UnchosenTaskWarning
from vtw_search.policies import Policy, PolicySet


class UnchosenTask:
    """Warns once when a thread that never chose runs under a file of several tasks.

    The thread that applied the file has chosen by naming a task. Without one it is meant to run the default, as long as
    no thread chooses another; a file that one task was named for is meant so for all threads, as long as none chooses.
    """

    def __init__(self, policies: Policy | PolicySet, task: str | None) -> None:
        self._several = isinstance(policies, PolicySet) and len(policies.tasks) > 1
        self._task, self._applied_by, self._somebody_chose = task, threading.get_ident(), False

    def one_has_chosen(self) -> None:
        """Note that some thread has chosen its policy."""
        self._somebody_chose = True

    def warn_once(self) -> None:
        """Warn where the calling thread, which has not chosen, may be meant to run another policy than the first."""
        signs = (threading.get_ident() == self._applied_by) + (self._task is not None)
        meant = signs == 2 or (signs == 1 and not self._somebody_chose)
        if not self._several or meant:
            return
        self._several = False
        first = "the default" if self._task is None else f"the task {self._task!r}"
        warnings.warn(
            f"a thread that chose no task runs the policy of {first}; a choice holds for its own thread alone, so call "
            "active.use(task) in the thread that calls the model",
            UnchosenTaskWarning,
            stacklevel=2,
        )
