"""Where a withdrawal pays off on the embedded model. `python -m experiments.reference_regimes.run`"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.result import Claim, write_result
from vtw_search.profile_config import load_profile_config
from vtw_search.profile_driver import run_profile
from vtw_search.report.regimes import sentences

LAYER = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Profile and write the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", default="1,8,32")
    parser.add_argument("--visual", default="64,576")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parsed = parser.parse_args(arguments)
    with TemporaryDirectory() as runs:
        config = load_profile_config(
            "recipe=vtw", f"recipe.layer={LAYER}", "model=reference", "tracking=none", f"runs={runs}",
            f"profile.batch=[{parsed.batch}]", f"profile.visual_tokens=[{parsed.visual}]", "profile.prompt_tokens=[32]",
            "profile.output_tokens=[1,16]", f"profile.repeats={parsed.repeats}",
        )  # fmt: skip
        result = run_profile(config)
        (parsed.out / "results").mkdir(exist_ok=True)
        shutil.copy(result.folder / "profile.png", parsed.out / "results" / "profile.png")
    claims = [
        Claim(f"{row.regime.label()}: times as fast ({row.verdict or row.status})",
              0.0 if row.speedup is None else row.speedup.value, "")
        for row in result.rows
    ]  # fmt: skip
    many = [row for row in result.rows if row.regime.visual_tokens > 64 and row.regime.output_tokens == 1]
    paid = sum(row.verdict == "pays off" for row in many)
    claims.append(Claim("regimes of many visual tokens and one output token that pay off", paid, f"of {len(many)}",
                        len(many)))  # fmt: skip
    write_result(parsed.out, 0, claims, {"in words": sentences(result.rows)})


if __name__ == "__main__":
    main()
