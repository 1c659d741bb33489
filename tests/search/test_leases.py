"""Leases: both tables against a model with a clock of its own; holders that live, die and meet."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine

from tests.servers import Server
from vtw_search.errors import StoreError
from vtw_search.search.leases import FileLeases, LeaseHolder, LeaseTable, SqlLeases
from vtw_search.search.patience import Patience
from vtw_search.search.team import Team


@pytest.fixture
def url(server: Server) -> str:
    return server.url.replace("postgresql:", "postgresql+psycopg:")


@pytest.fixture(params=["file", "sql"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> LeaseTable:
    if request.param == "file":
        return FileLeases(tmp_path / "leases.json")
    return SqlLeases(create_engine(request.getfixturevalue("url")), str(tmp_path), Patience("a database", 5))


def test_a_lease_is_one_owners_until_it_is_given_back(table: LeaseTable) -> None:
    assert table.take("a", "me", 60)
    assert table.take("a", "me", 60), "an owner may take what it has"
    assert not table.take("a", "you", 60)
    table.release("a", "you")
    assert not table.take("a", "you", 60), "only the owner gives back"
    assert table.take("b", "you", 60)
    assert table.owners() == {"me", "you"}
    table.release("a", "me")
    assert table.owners() == {"you"}
    assert table.take("a", "you", 60)


def test_an_expired_lease_is_free_unless_it_was_renewed(table: LeaseTable) -> None:
    assert table.take("a", "me", 0.2)
    assert table.take("b", "you", 0.2)
    table.renew("you", 60)
    time.sleep(0.3)
    assert table.owners() == {"you"}
    assert not table.take("b", "me", 60)
    assert table.take("a", "you", 60)
    table.renew("me", 60)
    assert not table.take("a", "me", 60), "who lost a lease does not get it back by renewing"


def test_scopes_do_not_meet(url: str) -> None:
    first, second = (SqlLeases(create_engine(url), name, Patience("a database", 5)) for name in ("first", "second"))
    assert first.take("a", "me", 60)
    assert second.take("a", "you", 60)
    assert first.owners() == {"me"}


names, owners, seconds = st.sampled_from("ab"), st.sampled_from(["me", "you"]), st.integers(1, 5)
calls = st.one_of(
    st.tuples(st.just("take"), names, owners, seconds),
    st.tuples(st.just("renew"), st.none(), owners, seconds),
    st.tuples(st.just("release"), names, owners, st.none()),
    st.tuples(st.just("wait"), st.none(), st.none(), seconds),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(calls, max_size=12))
def test_the_file_behaves_as_a_dictionary_with_a_clock(tmp_path: Path, steps: list[tuple[str, str, str, int]]) -> None:
    now, model = 0.0, dict[str, tuple[str, float]]()
    table = FileLeases(tmp_path / "model.json", lambda: now)
    table.path.unlink(missing_ok=True)
    for kind, name, owner, count in steps:
        if kind == "wait":
            now += count
        elif kind == "renew":
            table.renew(owner, count)
            model = {key: (who, now + count if who == owner else end) for key, (who, end) in model.items()}
        elif kind == "release":
            table.release(name, owner)
            model = {key: value for key, value in model.items() if key != name or value[0] != owner}
        else:
            free = name not in model or model[name][0] == owner or model[name][1] <= now
            assert table.take(name, owner, count) == free
            model |= {name: (owner, now + count)} if free else {}
        assert table.owners() == {who for who, end in model.values() if end > now}


def test_a_holder_keeps_what_it_is_at_for_longer_than_the_lease(table: LeaseTable) -> None:
    with LeaseHolder(table, "me", 0.6) as holder, holder.held("a") as mine:
        assert mine
        time.sleep(1.5)
        assert not table.take("a", "you", 60)
    assert table.take("a", "you", 60)
    assert table.owners() == {"you"}


def test_what_a_dead_holder_had_is_free_after_its_lease(table: LeaseTable) -> None:
    dead = LeaseHolder(table, "dead", 0.5)
    # Its process is gone: nothing renews any more.
    table.take("a", dead.owner, dead.seconds)
    with LeaseHolder(table, "me", 60) as holder:
        began = time.monotonic()
        with Team(holder, pause_s=0.05).turn("a"):
            assert 0.3 < time.monotonic() - began < 5


def test_holders_take_turns(table: LeaseTable) -> None:
    """A counter that is read, and written later, is only right if nobody else is between."""
    counter = [0]

    def count(number: int) -> None:
        with LeaseHolder(table, f"worker {number}", 60) as holder:
            for _ in range(5):
                with Team(holder, pause_s=0.01).turn("count"):
                    before = counter[0]
                    time.sleep(0.005)
                    counter[0] = before + 1

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter == [20]


def test_every_unit_is_visited_by_every_worker_and_by_one_at_a_time(table: LeaseTable) -> None:
    busy, visits = set[int](), list[tuple[int, int]]()

    def work(number: int) -> None:
        with LeaseHolder(table, f"worker {number}", 60) as holder:
            for unit in Team(holder, pause_s=0.01).each(range(4), str):
                assert unit not in busy
                busy.add(unit)
                time.sleep(0.01)
                visits.append((number, unit))
                busy.remove(unit)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(visits) == [(number, unit) for number in range(3) for unit in range(4)]


def test_leases_that_cannot_be_renewed_are_told_at_the_next_one(tmp_path: Path) -> None:
    table = FileLeases(tmp_path / "leases.json")
    with LeaseHolder(table, "me", 0.3) as holder:
        original, table.path = table.path, Path("/dev/null/leases.json")
        time.sleep(0.5)
        with (
            pytest.raises(StoreError, match=r"leases must be writable.*free space or fix the permissions"),
            holder.held("a"),
        ):
            pass
        table.path = original
        time.sleep(0.3)
        with holder.held("a") as mine:
            assert mine


def test_whatever_a_renewal_fails_with_is_told_at_the_next_one_and_renewing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = FileLeases(tmp_path / "leases.json")
    with LeaseHolder(table, "me", 0.3) as holder:
        with monkeypatch.context() as broken:
            broken.setattr(table, "renew", lambda owner, seconds: {}[owner])
            time.sleep(0.3)
            with pytest.raises(KeyError, match="me"), holder.held("a"):
                pass
        time.sleep(0.3)
        with holder.held("a") as mine:
            assert mine
            time.sleep(0.6)
            assert table.owners() == {"me"}
