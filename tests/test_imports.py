"""What importing costs: deployment must not load the search's libraries, nor a package what its functions need."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("optuna", "hydra", "mlflow", "fvcore", "pandas", "matplotlib", "plotly", "sklearn", "scipy.stats")
# One process for all: what each step adds to the modules of those before it.
STEPS = {
    # transformers itself imports some scientific libraries where they are installed.
    "libraries": "import torch, transformers, pydantic\nfrom transformers import AutoModelForImageTextToText, Cache",
    "deployment": "from vtw_search import apply_policy, load_policy",
    "packages": "import vtw_search.tracking, vtw_search.report",
}
CODE = """
import json, sys
added, known = {}, set()
for name, code in json.loads(sys.argv[1]).items():
    exec(code)
    added[name], known = sorted(set(sys.modules) - known), set(sys.modules)
print(json.dumps(added))
"""


@pytest.fixture(scope="module")
def added() -> dict[str, set[str]]:
    """The modules that each step has loaded."""
    command = [sys.executable, "-c", CODE, json.dumps(STEPS)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name: set(modules) for name, modules in json.loads(run.stdout).items()}


def test_deployment_imports_load_no_search_library(added: dict[str, set[str]]) -> None:
    own = {name for name in added["deployment"] if name.startswith(("vtw_search", "profilers", "conf."))}
    assert "vtw_search.runtime.apply" in own
    assert not own & {"vtw_search.records", "vtw_search.driver", "vtw_search.config", "profilers.macs"}
    assert not added["deployment"] & set(HEAVY)


def test_importing_tracking_and_report_loads_none_of_what_they_draw_and_write_with(added: dict[str, set[str]]) -> None:
    assert {"vtw_search.tracking", "vtw_search.report"} <= added["packages"]
    loaded = added["libraries"] | added["deployment"] | added["packages"]
    assert not loaded & {"mlflow", "matplotlib", "plotly"}
