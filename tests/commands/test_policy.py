"""`vtw-policy check`: what it prints and what it saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vtw_search.commands import policy
from vtw_search.conformance.check import Finding, Report
from vtw_search.policies import read_certificate


@pytest.mark.parametrize("passed", [True, False])
def test_a_check_saves_its_certificate_good_or_bad(
    capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, passed: bool
) -> None:
    """The check itself has its own tests; here its report is given."""
    worst = 1e-6 if passed else float("inf")
    finding = Finding(
        "2 removing equals masking", worst, 1e-5, None if passed else "deviation inf is larger than 1e-05"
    )
    monkeypatch.setattr("vtw_search.conformance.check_model", lambda *_, **__: Report((finding,), (1, 2)))
    path = tmp_path / "deep" / "certificate.json"
    arguments = ["check", "--model", "reference", "--device", "cpu", "--save", str(path)]
    if passed:
        policy.main(arguments)
    else:
        with pytest.raises(SystemExit, match="1"):
            policy.main(arguments)
    found = read_certificate(path)
    assert (found.model_type, found.layers, found.failed is None) == ("llava", (1, 2), passed)
    assert dict(found.deviations) == ({"2 removing equals masking": 1e-6} if passed else {})
    assert ("holds" in capsys.readouterr().out) == passed
