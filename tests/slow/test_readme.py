"""What the README shows works: its examples of a task of one's own and of applying a policy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vtw_search import Policy, PolicySet, save_policy
from vtw_search.evaluation.model import load_model
from vtw_search.policies import TaskPolicy

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str, marker: str) -> str:
    """Return the fenced block that holds `marker`."""
    [found] = [text for text in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if marker in text]
    return str(found)


@pytest.mark.slow
def test_the_example_of_a_task_of_ones_own(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", block("python", "my.jsonl")], cwd=tmp_path, check=True)
    [line] = [line.strip() for line in README.splitlines() if "task.name=mine" in line]
    assert line.startswith("vtw-search ")
    command = [sys.executable, "-m", "vtw_search", *line.split()[1:], "experiment=quick", "search=readme"]
    output = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "mine" in output
    assert (tmp_path / "runs" / "readme" / "policy.json").exists()


def test_the_example_of_applying_a_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = TaskPolicy(policy=Policy.withdraw(3))
    fingerprint = load_model("reference", device="cpu").facts.fingerprint
    (tmp_path / "runs" / "my-search").mkdir(parents=True)
    policies = PolicySet(model=fingerprint, tasks={"easy_vqa_yesno": chosen})
    save_policy(policies, tmp_path / "runs" / "my-search" / "policy.json")
    monkeypatch.chdir(tmp_path)
    exec(compile(block("python", "load_model"), "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.strip() in ("['yes']", "['no']")


def test_the_readme_names_only_files_and_targets_that_exist() -> None:
    root = Path(__file__).parents[2]
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (root / link).exists(), link
    makefile = (root / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", README.replace("\n", " "))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
