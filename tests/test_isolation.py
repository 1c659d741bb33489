"""What holds for every test: it reaches nothing beyond this machine, and it ends."""

from __future__ import annotations

import socket

import pytest
from pytest_socket import SocketConnectBlockedError


@pytest.mark.filterwarnings("ignore:A test tried to use")
def test_only_this_machine_can_be_reached() -> None:
    with pytest.raises(SocketConnectBlockedError, match=r'"192\.0\.2\.1" \(allowed: '):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_every_test_has_a_timeout(request: pytest.FixtureRequest) -> None:
    seconds = [item.get_closest_marker("timeout").args[0] for item in request.session.items]  # type: ignore[union-attr]
    assert min(seconds) > 0
