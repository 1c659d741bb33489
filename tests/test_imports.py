"""What importing costs: deployment must not load the search's libraries."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("optuna", "hydra", "mlflow", "fvcore", "pandas", "matplotlib", "plotly", "sklearn", "scipy.stats")


BASELINE = """
import sys, torch, transformers, pydantic
from transformers import AutoModelForImageTextToText, Cache
print(*sys.modules)
"""


def test_deployment_imports_load_no_search_library() -> None:
    code = "import sys; from vtw_search import apply_policy, load_policy; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = {name for name in run.stdout.split() if name.startswith(("vtw_search", "profilers", "conf."))}
    assert "vtw_search.runtime.apply" in own
    assert not own & {"vtw_search.records", "vtw_search.driver", "vtw_search.config", "profilers.macs"}
    # transformers itself imports some scientific libraries where they are installed; ours are not among the rest.
    baseline = subprocess.run(
        [sys.executable, "-c", BASELINE],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = set(run.stdout.split()) - set(baseline.stdout.split())
    assert not loaded & set(HEAVY)
