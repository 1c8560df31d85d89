"""Rows and the file that holds them: appended rows survive kill -9; malformed ones are named by file and line."""

import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import records, storage
from lema_jax.errors import UserError
from lema_jax.records import Appender, Example, Problem, row_id


def example(number: int, completion: str = "c") -> Example:
    return Example(id=f"e{number}", kind="cot", problem_id="p", source="gold", prompt="p", completion=completion)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    records.write(path, [example(1), example(2), example(3)])
    return path


@given(completions=st.lists(st.text(), max_size=8))
def test_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, completions: list[str]) -> None:
    path = tmp_path_factory.mktemp("rows") / "deep" / "rows.jsonl"
    rows = [example(number, text) for number, text in enumerate(completions)]
    assert records.write(path, rows) == len(rows)
    assert list(records.read(path, Example)) == rows
    with Appender(path.with_name("appended.jsonl"), Example) as appender:
        appender.append(*rows)
        assert path.with_name("appended.jsonl").read_bytes() == path.read_bytes()


def test_ids_are_of_everything_and_of_nothing_else() -> None:
    assert row_id(a=1, b="x") == row_id(b="x", a=1)
    assert row_id(a=1) != row_id(a=2)
    assert row_id(a=1) != row_id(b=1)
    code = "from lema_jax.records import row_id; print(row_id(a=[1, 2.5], b={'c': 'é'}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == row_id(a=[1, 2.5], b={"c": "é"})


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "x"', r"rows.jsonl:4: the line: .*JSON.*expected: Example"),
        ('{"id": "x"}', "rows.jsonl:4: kind: Field required"),
        (example(9).model_dump_json().replace('"cot"', "7"), "rows.jsonl:4: kind: .*string"),
        (example(9).model_dump_json().replace('"kind"', '"mind"'), "rows.jsonl:4: "),
        (example(2).model_dump_json(), "rows.jsonl:4: id 'e2' is on line 2 already"),
    ],
)
def test_a_malformed_line_is_named(file: Path, line: str, expected: str) -> None:
    before = file.read_text()
    file.write_text(before + line + "\n")
    with pytest.raises(UserError, match=expected):
        list(records.read(file, Example))
    with pytest.raises(UserError, match=expected):
        Appender(file, Example)
    assert file.read_text() == before + line + "\n"


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*absent.jsonl: No such file"):
        list(records.read(tmp_path / "absent.jsonl", Example))
    (tmp_path / "packed.jsonl").write_bytes(b"\x1f\x8b\xff\xfe")
    with pytest.raises(UserError, match=r"packed.jsonl:1: not UTF-8"):
        list(records.read(tmp_path / "packed.jsonl", Example))


def test_rows_of_another_kind_are_refused(file: Path) -> None:
    with pytest.raises(
        UserError, match=r"rows.jsonl:1: this is a file of training examples .*; a file of problems is needed"
    ):
        list(records.read(file, Problem))


def test_blank_lines_mean_nothing(file: Path) -> None:
    file.write_text(file.read_text().replace("\n", "\n\n"))
    assert [row.id for row in records.read(file, Example)] == ["e1", "e2", "e3"]


@given(data=st.data())
def test_a_torn_last_line_is_dropped_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("torn") / "rows.jsonl"
    texts = data.draw(st.lists(st.text(max_size=20), min_size=1, max_size=4))
    rows = [example(number, text) for number, text in enumerate(texts)]
    records.write(path, rows)
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = [row for number, row in enumerate(rows) if cut >= len(b"\n".join(content.split(b"\n")[: number + 1]))]
    with Appender(path, Example) as appender:
        assert list(appender.rows.values()) == whole
        appender.append(*rows[len(whole) :])
    assert path.read_bytes() == content


def test_a_growing_file_is_read_up_to_its_last_whole_line(file: Path) -> None:
    with open(file, "ab") as opened:
        opened.write(b'{"id": "torn')
    assert [row.id for row in records.read(file, Example, growing=True)] == ["e1", "e2", "e3"]
    with pytest.raises(UserError, match=r"rows.jsonl:4: the line: "):
        list(records.read(file, Example))


def test_a_torn_line_in_the_middle_is_an_error_and_stays(file: Path) -> None:
    lines = file.read_text().splitlines()
    torn = "\n".join([lines[0], lines[1][:20], lines[2]]) + "\n"
    file.write_text(torn)
    with pytest.raises(UserError, match=r"rows.jsonl:2: "):
        Appender(file, Example)
    assert file.read_text() == torn


def test_a_row_is_appended_once(file: Path) -> None:
    with Appender(file, Example) as appender:
        for rows in ((example(2),), (example(4), example(2)), (example(5), example(5))):
            with pytest.raises(ValueError, match=f"row {rows[-1].id} is in .* already"):
                appender.append(*rows)
        assert appender.rows.keys() == {"e1", "e2", "e3"}
    assert [row.id for row in records.read(file, Example)] == ["e1", "e2", "e3"]


def test_a_row_counts_only_when_it_is_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "no space left on device")

    before = file.read_bytes()
    with Appender(file, Example) as appender:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(OSError, match="no space") as raised:
                appender.append(example(4))
        assert raised.value.filename == str(file)
        assert "e4" not in appender.rows
        assert file.read_bytes() == before
        appender.append(example(5))
    assert [row.id for row in records.read(file, Example)] == ["e1", "e2", "e3", "e5"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_closing_a_file_whose_disk_is_full_raises_nothing_more(file: Path) -> None:
    appender = Appender(file, Example)
    with open("/dev/full", "ab") as full:
        os.dup2(full.fileno(), appender._file.fileno())
    with pytest.raises(OSError, match="No space left") as raised, appender:
        appender.append(example(4))
    assert raised.value.filename == str(file)


def test_a_row_that_no_reader_takes_is_not_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "LONGEST_LINE", 1000)
    room = 1000 - len(example(4, "").model_dump_json()) - 1
    with Appender(file, Example) as appender:
        for write in (appender.append, lambda row: records.write(file, [row])):
            with pytest.raises(UserError, match=rf"{file}: row e4 has 1,001 bytes; a line has 1,000 at most"):
                write(example(4, "x" * (room + 1)))
        appender.append(example(4, "x" * room))
    assert [row.id for row in records.read(file, Example)] == ["e1", "e2", "e3", "e4"]


def test_a_second_writer_is_refused_while_the_first_writes(file: Path) -> None:
    with Appender(file, Example), pytest.raises(UserError, match="being written by another process"):
        Appender(file, Example)
    with Appender(file, Example) as appender:
        appender.append(example(4))


def test_write_leaves_the_old_file_when_it_fails(file: Path) -> None:
    def failing() -> Iterator[Example]:
        yield example(7)
        raise RuntimeError

    before = file.read_bytes()
    with pytest.raises(RuntimeError):
        records.write(file, failing())
    assert file.read_bytes() == before


_WRITER = """
import sys
from lema_jax.records import Appender, Example
with Appender(sys.argv[1], Example) as out:
    for number in range(100_000):
        if f"e{number}" not in out.rows:
            text = str(number) * 2000
            out.append(Example(id=f"e{number}", kind="cot", problem_id="p", source="s", prompt="p", completion=text))
            print(number, flush=True)
"""


@pytest.mark.long
def test_nothing_is_lost_or_doubled_by_kill_9(tmp_path: Path) -> None:
    path, moments = tmp_path / "rows.jsonl", random.Random(0)
    acknowledged = -1
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        told = [int(line) for line in [first, *process.stdout.read().splitlines()] if line.strip()]
        process.wait()
        assert told[0] <= acknowledged + 2  # it went on where it was: at most one row beyond what had been printed
        acknowledged = told[-1]
    with Appender(path, Example) as appender:
        numbers = [int(id[1:]) for id in appender.rows]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged
        assert all(row.completion == str(number) * 2000 for number, row in enumerate(appender.rows.values()))


def test_rows_are_on_the_disk_and_not_in_memory(tmp_path: Path) -> None:
    made = 0

    def rows() -> Iterator[Example]:
        nonlocal made
        for number in range(2_000):
            made += 1
            yield example(number, f"{number} é\u2028" * 1_000)

    tracemalloc.start()
    with Appender(tmp_path / "rows.jsonl", Example) as appender:
        appender.extend(rows())
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert appender.path.stat().st_size > 15e6
        assert most < 5e6  # bytes; some rows on their way to the disk
        assert held < 1e6
        assert made == len(appender.rows) == 2_000
        assert appender.rows["e1234"] == example(1234, "1234 é\u2028" * 1_000)
    with Appender(tmp_path / "rows.jsonl", Example) as appender:
        appender.append(example(2_000))
        assert [appender.rows[id].completion[:4].strip() for id in ("e7", "e1999", "e2000")] == ["7 é", "1999", "c"]
        assert list(appender.rows)[-2:] == ["e1999", "e2000"]


def test_a_command_that_fails_before_its_first_row_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        with Appender(path, Problem):
            raise UserError("no weights")

    with pytest.raises(UserError, match="no weights"):
        fail(tmp_path / "deep" / "er" / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept.jsonl").write_text("")
    with pytest.raises(UserError, match="no weights"):
        fail(tmp_path / "kept.jsonl")
    assert (tmp_path / "kept.jsonl").exists()


def test_a_file_without_rows_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "rows.jsonl"
    with Appender(path, Problem):
        assert path.exists()
    with Appender(path, Problem) as file:
        records.write(file.path, [])
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("before")

    def rows() -> Iterator[Problem]:
        yield from ()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        records.write(path, rows())
    assert path.read_text() == "before"
    with storage.replacing(path) as file:
        file.write(b"after")
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
    storage.write("/dev/null", "gone")
    assert not Path("/dev/null").is_file()
