"""What MLflow's page of an experiment offers: a description and saved views, so that nobody has to pick columns first.

A saved view is an experiment tag that the page reads and writes (MLflow 3.17). A page of another version that does not
know it shows its own columns.
"""

from __future__ import annotations

import json

_VIEW_TAG = "mlflow.sharedViewState."
# The columns from left to right with their widths in pixels; the page shows no metric unless it is told to.
_COLUMNS = {
    "tags.`search`": 110,
    "tags.`task`": 120,
    "metrics.`chosen`": 80,
    "metrics.`accuracy`": 90,
    "metrics.`kl_answer_nats`": 125,
    "metrics.`macs_ratio`": 100,
    "metrics.`macs`": 135,
    "metrics.`latency_ms`": 100,
    "tags.`status`": 600,
}

DESCRIPTION = (
    "A run per search, below it a run per study (one task), below that a run per candidate (one policy). The chosen "
    "candidate has a star. **Views > Candidates** lists all candidates with accuracy, KL, macs and time, to sort by; "
    "**Views > Chosen policies** compares the answers of all searches. The filter takes `tags.search = '...'`, "
    "`tags.task = '...'` and `tags.sweep = '...'`."
)


def experiment_tags() -> dict[str, str]:
    """Return the tags of an experiment that has searches."""
    return {
        "mlflow.note.content": DESCRIPTION,
        # Without it the page opens with the menus for chats and traces.
        "mlflow.experimentKind": "custom_model_development",
        f"{_VIEW_TAG}vtw-candidates": _view("Candidates", "tags.kind = 'candidate'", "chosen"),
        f"{_VIEW_TAG}vtw-chosen": _view("Chosen policies", "tags.chosen = 'yes'", "macs_ratio"),
    }


def _view(name: str, query: str, order: str) -> str:
    state = {
        "searchFilter": query,
        # Only an order by a metric lists the runs without their parents.
        "orderByKey": f"metrics.`{order}`",
        "orderByAsc": order != "chosen",
        "selectedColumns": list(_COLUMNS),
        "columnOrder": list(_COLUMNS),
        "columnWidths": _COLUMNS,
    }
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)})
