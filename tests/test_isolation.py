"""What holds for every test: it reaches nothing beyond this machine, it ends, its models are its own, it runs once."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest_socket import SocketConnectBlockedError

from experiments.model_coverage.families import find
from vtw_search.evaluation.model import load_model

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("ignore:A test tried to use")
def test_only_this_machine_can_be_reached() -> None:
    with pytest.raises(SocketConnectBlockedError, match=r'"192\.0\.2\.1" \(allowed: '):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_every_test_has_a_timeout(request: pytest.FixtureRequest) -> None:
    seconds = [item.get_closest_marker("timeout").args[0] for item in request.session.items]  # type: ignore[union-attr]
    assert min(seconds) > 0


def test_a_tiny_model_is_made_once_and_every_test_has_its_own() -> None:
    made: list[Any] = []
    family = find("llava")
    counted = replace(family, model=lambda config: made.append(family.model(config)) or made[-1])
    first, second = counted.build(), counted.build()
    assert len(made) == 1
    assert_apart(first, second)
    assert counted.build("eager").config._attn_implementation == "eager"


def test_the_shipped_model_is_every_tests_own() -> None:
    assert_apart(*(load_model("reference", device="cpu").model for _ in range(2)))


def assert_apart(first: Any, second: Any) -> None:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(one.data_ptr() != other.data_ptr() and torch.equal(one, other) for one, other in pairs)
    first.register_forward_hook(lambda *_: None)
    assert not second._forward_hooks


def test_ci_runs_every_test_once() -> None:
    makefile, commands = ((ROOT / name).read_text() for name in ("Makefile", ".ci/run"))
    targets = re.findall(r"^make (test\S*)$", commands, re.MULTILINE)
    selected = [re.search(rf"^{target}: .*\n\t\$\(PYTEST\) (.*)$", makefile, re.MULTILINE) for target in targets]
    assert [found and found[1] for found in selected] == ['-m "not slow"', "-m slow"]
