"""Tests of the core on the releases of transformers that engines pin. `make check-versions`"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from experiments.result import Claim, write_result

ROOT = Path(__file__).parents[2]
# The stated floor, which optimum-intel pins, what vLLM pins, and the newest.
RELEASES = ("5.5", "5.19", "newest")
TESTS = ("tests/policies", "tests/operators", "tests/scorers", "tests/runtime", "tests/conformance")
_COUNTS = re.compile(r"(\d+) (passed|failed|skipped|errors?)\b")


def python_of(release: str, folder: Path) -> Path:
    """Return the interpreter of an environment with a release, which is made if it is not there."""
    place = folder / f"transformers-{release}"
    python = place / "bin" / "python"
    if not (place / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        own = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        # What this environment has is found behind what is installed there.
        Path(own, "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        asked = ["--upgrade", "transformers"] if release == "newest" else [f"transformers=={release}.*"]
        subprocess.run([*pip, *asked], check=True)
        (place / "ready").touch()
    return python


def counts_of(python: Path, tests: Sequence[str], log: Path) -> dict[str, int]:
    """Run tests with an interpreter; returns how many passed, failed and were skipped."""
    command = [str(python), "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(done.stdout + done.stderr)
    found = {name.removesuffix("s"): int(count) for count, name in _COUNTS.findall(done.stdout.splitlines()[-1])}
    if done.returncode not in (0, 1) or not found.get("passed"):
        raise SystemExit(f"the tests did not run; see {log}")
    return {name: found.get(name, 0) for name in ("passed", "failed", "skipped", "error")}


def release_of(python: Path) -> str:
    """Return the exact release that an interpreter finds."""
    asked = "import transformers; print(transformers.__version__)"
    return subprocess.run([python, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Test every release and write the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", nargs="+", default=RELEASES)
    parser.add_argument("--tests", nargs="+", default=TESTS)
    parser.add_argument("--environments", type=Path, default=ROOT / ".venvs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parsed = parser.parse_args(arguments)
    claims, details = [], {}
    for release in parsed.releases:
        python = python_of(release, parsed.environments)
        exact = release_of(python)
        counts = counts_of(python, parsed.tests, parsed.environments / f"{exact}.log")
        print(f"transformers {exact}: " + ", ".join(f"{count} {name}" for name, count in counts.items()), flush=True)
        details[exact] = counts
        broken = counts["failed"] + counts["error"]
        claims.append(Claim(f"failures on transformers {exact}", broken, "tests", 0, "at most"))
    write_result(parsed.out, 0, claims, {"date": datetime.now(UTC).date().isoformat(), "tests": details})
    if not all(claim.met for claim in claims):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
