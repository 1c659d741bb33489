"""Lines that are appended, files that are made anew, locks that are waited for: whatever a kill has done to them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

import vtw_search
from vtw_search.errors import StoreError
from vtw_search.files import read_json, remembered
from vtw_search.lines import Lines
from vtw_search.locks import LockError, locked
from vtw_search.policies import Policy
from vtw_search.records import Measurement, RecordStore

NUMBERS = TypeAdapter(dict[str, list[int]])
own_folder = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lines(path: Path) -> Lines[dict[str, list[int]]]:
    return Lines(path, NUMBERS, "remove that line")


rows = st.lists(st.dictionaries(st.text(max_size=3), st.lists(st.integers(-9, 9), max_size=2), max_size=2), max_size=4)


@own_folder
@given(rows, st.data())
def test_a_kill_at_any_byte_loses_the_last_row_at_most_and_the_next_one_is_whole(
    tmp_path: Path, stored: list[dict[str, list[int]]], data: st.DataObject
) -> None:
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    file = lines(path)
    for row in stored:
        file.append(row)
    assert file.rows() == stored
    content = path.read_bytes() if stored else b""
    kept = content[: data.draw(st.integers(0, len(content)))]
    path.write_bytes(kept)
    # A row counts as soon as its closing brace is there: no beginning of an object is a whole one.
    ends = [end for end, byte in enumerate(content) if content[end : end + 2] == b"}\n"]
    whole = stored[: sum(end < len(kept) for end in ends)]
    assert file.rows() == whole
    file.append({"next": [1]})
    assert file.rows() == [*whole, {"next": [1]}]
    assert path.read_bytes().count(b"\n") == len(whole) + 1


@own_folder
@given(st.binary(max_size=60))
def test_whatever_a_file_holds_there_are_rows_or_an_error_that_names_the_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.jsonl"
    path.write_bytes(content)
    try:
        found = lines(path).rows()
    except StoreError as error:
        found = str(error)
    assert isinstance(found, list) or (str(path) in found and "remove that line" in found)


def test_a_line_that_is_no_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": [1]}\n{"a": 1}\n{"b": []}\n')
    with pytest.raises(
        StoreError, match=r"a stored file must be readable \(a: Input.*rows.jsonl'; line 2: remove that"
    ):
        lines(path).rows()


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for place in range(20):
            lines(tmp_path / "rows.jsonl").append({str(number): [place]})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lines(tmp_path / "rows.jsonl").rows()
    assert sorted(map(str, found)) == sorted(str({str(n): [place]}) for n in range(4) for place in range(20))


def test_a_measurement_is_written_without_the_others(tmp_path: Path) -> None:
    """One row more costs the same when there are many: what is there is left where it is."""
    store = RecordStore(tmp_path, {})
    row = Measurement(task="t", policy=Policy.withdraw(3), layer=3)
    store.add_measurement(row)
    [path] = tmp_path.glob("measurements*.jsonl")
    line, before = path.read_text(), path.stat().st_ino
    path.write_text(line * 3000)
    store.add_measurement(row)
    assert path.stat().st_ino == before
    assert path.read_text() == line * 3001


def test_a_whole_measurement_without_its_newline_counts(tmp_path: Path) -> None:
    store = RecordStore(tmp_path, {})
    first, second = (Measurement(task="t", policy=Policy.withdraw(layer), layer=layer) for layer in (3, 4))
    store.add_measurement(first)
    [path] = tmp_path.glob("measurements*.jsonl")
    path.write_text(path.read_text().rstrip("\n"))
    assert list(store.measurements().values()) == [first]
    store.add_measurement(second)
    assert list(store.measurements().values()) == [first, second]
    path.write_text(path.read_text()[:-20])
    store.add_measurement(second)
    assert list(store.measurements().values()) == [first, second]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"a": [1', b"\xff\xfe\x00", b"[]", b'{"a": "x"}', b"null", b"\x00" * 30]
)
def test_what_can_be_made_again_is_made_again_and_said(tmp_path: Path, content: bytes) -> None:
    path, said = tmp_path / "numbers.json", list[str]()
    path.write_bytes(content)
    assert remembered(path, NUMBERS, lambda: {"a": [1]}, said.append) == {"a": [1]}
    assert len(said) == 1
    assert "numbers.json'; it is made anew" in said[0]
    assert remembered(path, NUMBERS, lambda: pytest.fail("made twice"), said.append) == {"a": [1]}
    assert len(said) == 1


def test_a_missing_file_is_made_without_a_word(tmp_path: Path) -> None:
    assert remembered(tmp_path / "a" / "b.json", NUMBERS, lambda: {}, pytest.fail) == {}


def test_nested_brackets_are_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(StoreError, match="delete it"):
        read_json(path, NUMBERS, "delete it")


def test_a_lock_is_waited_for_so_long_and_then_named(tmp_path: Path) -> None:
    began = time.monotonic()
    own = locked(tmp_path / "a.lock", "the rows", wait_s=0.2)
    with FileLock(tmp_path / "a.lock"), pytest.raises(LockError, match=r"the rows must be free within 0.2 s.*a\.lock"):
        own.__enter__()
    assert 0.2 <= time.monotonic() - began < 5
    with locked(tmp_path / "a.lock", "the rows", wait_s=0.2):
        pass


def test_a_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.lock")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.wait()
    process.stdout.close()
    with locked(tmp_path / "a.lock", "the rows", wait_s=5):
        pass


def test_a_lock_that_cannot_be_written_is_an_error() -> None:
    with pytest.raises(LockError, match=r"the rows must be writable.*fix the permissions"):
        locked(Path("/proc/nowhere/a.lock"), "the rows").__enter__()


def test_every_lock_is_waited_for_in_the_same_way() -> None:
    package = Path(vtw_search.__file__).parent
    assert [path.name for path in package.rglob("*.py") if "FileLock(" in path.read_text()] == ["locks.py"]
