"""The core on releases of transformers that lack what newer ones have, and packages that cannot be imported."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from safetensors import safe_open

from vtw_search.evaluation.model import _SHIPPED_BEFORE, REFERENCE_MODEL
from vtw_search.evaluation.weights import tensors_digest

ROOT = Path(__file__).parents[1]
OLDER = """
from transformers import cache_utils
newer = {name: vars(cache_utils).pop(name) for name in ("DummyLayer", "DynamicIndexedLayer")}
import vtw_search.adapters.cache_layers
vars(cache_utils).update(newer)  # which transformers' own code of this release needs
import torch
from tests.conftest import make_inputs, make_tiny_llava
from vtw_search import Policy, apply_policy
from vtw_search.adapters import structural_problem
model, inputs = make_tiny_llava(), make_inputs((1,))
with apply_policy(model, Policy.withdraw(2)), torch.no_grad():
    print(model.generate(**inputs, max_new_tokens=3, do_sample=False).shape[0])
from types import SimpleNamespace as Space
text = Space(is_encoder_decoder=False, num_hidden_layers=model.config.text_config.num_hidden_layers + 1)
model.config.get_text_config = lambda decoder=False: text
import vtw_search.adapters.structure as structure
structure.DynamicCache = lambda config: Space(layers=[object()] * (text.num_hidden_layers - 1))
print(structural_problem(model.config))
"""
# What must not be there, after what was imported.
LIGHT = {
    "vtw_search": ("torch", "transformers", "pydantic", "vtw_search.runtime"),
    "vtw_search.policies": ("torch", "transformers", "vtw_search.runtime"),
    "vtw_search.tokens": ("transformers", "vtw_search.runtime"),
    "vtw_search.scorers": ("transformers", "vtw_search.runtime"),
    "vtw_search.operators": ("transformers", "vtw_search.runtime"),
    "vtw_search.recipes": ("transformers", "vtw_search.runtime"),
}
ARGUMENTS = {
    "vtw-search": ["task=digits_read", "limits.confidence=null"],
    "vtw-profile": ["recipe=vtw", "recipe.layer=3", "profile=macs"],
    "vtw-policy": ["check", "--model", "reference"],
}
EVERY_COMMAND = """
import sys
from importlib import metadata
for command, *arguments in {commands}:
    sys.argv = [command, *arguments]
    try:
        next(iter(metadata.entry_points(name=command))).load()()
    except SystemExit as end:
        print("status", end.code, file=sys.stderr)
"""


def run(code: str, *paths: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *paths))), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)


def test_policies_run_where_newer_kinds_of_caches_are_missing() -> None:
    done = run(OLDER)
    assert done.returncode == 0, done.stderr[-2000:]
    applied, refused = done.stdout.splitlines()[-2:]
    assert applied == "1"
    assert "does not tell which layers read the keys of others; 5.20 and later do" in refused


@pytest.mark.parametrize("module", LIGHT)
def test_parts_are_imported_without_what_they_do_not_need(module: str) -> None:
    done = run(f"import sys, {module}; print([name for name in {LIGHT[module]} if name in sys.modules])")
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_public_name_is_found_and_no_other() -> None:
    import vtw_search

    assert {name for name in vtw_search.__all__ if getattr(vtw_search, name) is None} == set()
    assert set(vtw_search.__all__) <= set(dir(vtw_search))
    with pytest.raises(AttributeError, match="no attribute 'apply_polcy'"):
        _ = vtw_search.apply_polcy


def test_the_shipped_weights_have_the_names_that_every_release_loads() -> None:
    with safe_open(REFERENCE_MODEL / "model.safetensors", "pt") as file:
        towers = [name for name in file.keys() if name.startswith("vision_tower.")]  # noqa: SIM118
    assert towers
    assert all(name.startswith("vision_tower.vision_model.") for name in towers)
    assert set(_SHIPPED_BEFORE) == {tensors_digest(REFERENCE_MODEL)}, "and are the very tensors that they were before"


def test_a_package_that_does_not_fit_is_named_in_one_line_by_every_command(tmp_path: Path) -> None:
    package, about = tmp_path / "torchvision", tmp_path / "torchvision-0.29.1.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text(
        'import torch\ntorch.library.register_fake("torchvision::nms")(lambda *a: None)\n'
    )
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.29.1\n")
    ours = [each.name for each in metadata.entry_points(group="console_scripts") if each.name.startswith("vtw-")]
    assert sorted(ours) == sorted(ARGUMENTS)
    done = run(EVERY_COMMAND.format(commands=[[name, *ARGUMENTS[name]] for name in ARGUMENTS]), tmp_path, cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if line.startswith(("vtw-", "status", "Traceback"))]
    assert [line for line in lines if line.startswith("status")] == ["status 2"] * len(ARGUMENTS), done.stderr[-3000:]
    named = [line for line in lines if line.startswith("vtw-")]
    assert [line.partition(":")[0] for line in named] == list(ARGUMENTS)
    for line in named:
        assert "torchvision 0.29.1 cannot be imported: operator torchvision::nms does not exist" in line
        assert f"fits torch {metadata.version('torch')}" in line
