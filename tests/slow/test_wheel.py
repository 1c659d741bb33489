"""The built wheel in a fresh environment, run from an empty folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APPLY = """
from vtw_search import Policy, apply_policy
from pathlib import Path
import vtw_search
from transformers import AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained(Path(vtw_search.__file__).parent / "reference_model")
with apply_policy(model, Policy.withdraw(layer=4)):
    print("applied")
"""


def run(*command: str | Path, cwd: Path, status: int = 0) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_works_with_and_without_its_extra(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT, cwd=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "conf/config.yaml" in names
    assert {f"vtw_search/policies/policy.schema.{version}.json" for version in (1, 2)} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "experiments"))]
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    bin_folder = tmp_path / "venv" / "bin"
    pip = (bin_folder / "python", "-m", "pip", "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt")
    run(*pip, wheel, cwd=empty)
    assert "applied" in run(bin_folder / "python", "-c", APPLY, cwd=empty)
    message = run(bin_folder / "vtw-search", cwd=empty, status=2).strip()
    assert message.startswith("vtw-search: vtw-search needs hydra")
    assert message.endswith("pip install 'vtw-search[search]'")
    assert len(message.splitlines()) == 1
    run(*pip, f"{wheel}[search]", cwd=empty)
    output = run(bin_folder / "vtw-search", "experiment=quick", "task=digits_read", "search=wheel", cwd=empty)
    assert "policy file" in output
    assert (empty / "runs" / "wheel" / "policy.json").exists()
    assert (empty / "runs" / "mlflow.db").exists()
