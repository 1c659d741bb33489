"""`vtw-policy`: what can be asked about models and policy files without a search."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from vtw_search.commands.entry import run_command
from vtw_search.files import with_home


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand; bad input ends with one line on stderr and exit status 2, a failed check with 1."""
    parser = argparse.ArgumentParser(prog="vtw-policy", description=__doc__)
    commands = parser.add_subparsers(required=True)
    check = commands.add_parser("check", help="check the runtime's contracts on a model", description=_CHECK)
    check.add_argument("--model", required=True, help="folder or Hub id; `reference` is the embedded model")
    check.add_argument("--revision", help="commit of a Hub repository")
    check.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    check.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    check.add_argument("--attention", default="sdpa", choices=["eager", "sdpa"])
    check.add_argument("--layers", type=int, nargs="*", help="which K to check (default: all)")
    check.add_argument("--tolerance", type=float, help="largest deviation relative to the spread of the logits")
    check.add_argument("--save", type=Path, help="write the certificate, good or bad, to this file")
    check.set_defaults(run=_check)
    parsed = parser.parse_args(arguments)
    run_command("vtw-policy", (), partial(parsed.run, parsed), interrupted="stopped")


_CHECK = (
    "Checks on small random images that the model computes under a policy what it computes with the visual tokens "
    "masked, in prefill and in generation. Prints every contract with the largest deviation that was found, relative "
    "to the spread of the logits."
)


def _check(arguments: argparse.Namespace) -> None:
    from transformers.utils import logging

    from vtw_search.conformance import certificate_of, check_model, processor_probes
    from vtw_search.evaluation.model import load_model
    from vtw_search.files import write_text_atomically

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loaded = load_model(
        with_home(arguments.model), revision=arguments.revision, device=arguments.device, dtype=arguments.dtype,
        attention=arguments.attention,
    )  # fmt: skip
    facts, adapter = loaded.facts, loaded.adapter
    kind = "generic, needs a certificate" if adapter.needs_certificate else "its own"
    print(f"{facts.fingerprint.describe()}; adapter: {kind}; K may be {facts.first_layer}..{facts.last_layer}")
    probes = processor_probes(adapter, loaded.processor, loaded.device)
    report = check_model(loaded.model, probes, tolerance=arguments.tolerance, layers=arguments.layers)
    for finding in report.findings:
        number = "      -" if finding.deviation is None else f"{finding.deviation:7.1e}"
        verdict = "holds" if finding.passed else f"FAILS: {finding.problem}"
        print(f"{finding.contract:38} largest deviation {number} (may be {finding.tolerance:.0e})  {verdict}")
    if arguments.save is not None:
        write_text_atomically(arguments.save, certificate_of(loaded.model, report).model_dump_json(indent=2) + "\n")
    if not report.passed:
        raise SystemExit(1)
