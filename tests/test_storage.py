import importlib.util
import os
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from lema_jax import checkpoint, storage
from lema_jax.checkpoint import Metadata
from lema_jax.data import dataset, tokenizer
from lema_jax.errors import UserError
from lema_jax.records import Appender, Problem
from lema_jax.storage import RunFolder
from tests import tiny

paths = st.lists(st.sampled_from(["a", "b", "runs", "x.1"]), min_size=1, max_size=4).map("/".join)


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> str:
    """A bucket that is a folder of this disk: gs://bucket/x is tmp_path/store/bucket/x."""
    from etils.epath import backend

    root = f"{tmp_path}/store/"

    class Store(LocalFileSystem):
        protocol = ("gs", "gcs")

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return root + str(path).removeprefix("gs://").removeprefix(root).rstrip("/")

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name == "gcsfs" or find(name, *rest))
    monkeypatch.setattr(backend.fsspec_backend, "_get_filesystem", lambda name: Store(auto_mkdir=True))
    return f"gs://bucket/{tmp_path.name}"


def test_a_folder_s_files_come_and_go(bucket, tmp_path):
    (tmp_path / "here" / "inside").mkdir(parents=True)
    (tmp_path / "here" / "file").write_bytes(b"\0\1")
    (tmp_path / "here" / "inside" / "other").write_text("other")
    RunFolder(f"{bucket}/there").copy_files(tmp_path / "here")
    assert (storage.place(f"{bucket}/there") / "file").read_bytes() == b"\0\1"
    brought = storage.here(f"{bucket}/there")
    assert [(file.name, file.read_bytes()) for file in brought.iterdir()] == [("file", b"\0\1")]
    assert storage.here(tmp_path) == tmp_path


@pytest.mark.parametrize("remote", [True, False])
def test_lines_are_added(remote, bucket, tmp_path):
    folder = bucket if remote else tmp_path
    storage.place(folder).mkdir(parents=True, exist_ok=True)
    for line in ("one\n", "two\n"):
        RunFolder(folder).append("log", line)
    assert (storage.place(folder) / "log").read_text() == "one\ntwo\n"


@given(paths, paths, st.sampled_from(["gs://bucket/", "/disk/"]))
def test_a_relative_path_leads_back(folder, start, home):
    led = str(RunFolder(home + start).follow(RunFolder(home + folder).relative_to(home + start)))
    assert storage.is_remote(led) == storage.is_remote(home)
    assert Path(led).resolve() == Path(home + folder).resolve()
    assert storage.is_remote(home) <= (".." not in led)


def test_a_disk_and_the_store_have_no_path_between_them():
    with pytest.raises(UserError, match="must be together"):
        RunFolder("gs://bucket/base").relative_to("runs/x")


def test_a_data_set_is_read_from_the_store(bucket, tmp_path):
    data = tiny.data_set(tmp_path / "data")
    for part in ("", "/tokenizer"):
        RunFolder(f"{bucket}/data{part}").copy_files(f"{data}{part}")
    assert dataset.counts(f"{bucket}/data") == dataset.counts(data)
    assert dataset.fingerprint(f"{bucket}/data") == dataset.fingerprint(data)
    assert dataset.Records(f"{bucket}/data")[3]["tokens"].tolist() == dataset.Records(data)[3]["tokens"].tolist()
    assert tokenizer.fingerprint(tokenizer.load(f"{bucket}/data")) == tokenizer.fingerprint(tokenizer.load(data))
    with pytest.raises(UserError, match="no data set at gs://"):
        dataset.counts(f"{bucket}/none")


def test_only_what_was_committed_is_a_step(bucket):
    run = f"{bucket}/run"
    assert checkpoint.steps(run) == []
    checkpoint.checkpoints(run).mkdir(parents=True)
    checkpoint.write_metadata(run, Metadata(tiny.CONFIG, "abc"))
    assert checkpoint.read_metadata(run) == Metadata(tiny.CONFIG, "abc")
    for step in (2, 10, 12):
        path = checkpoint.checkpoints(run) / str(step)
        path.mkdir()
        (path / "_METADATA").write_text("{}")
        if step < 12:
            (path / "commit_success.txt").write_text("")
    assert checkpoint.steps(run) == [2, 10]
    assert checkpoint.identity(run) == "abc@10"


def test_what_must_lie_on_this_disk_says_so():
    for asked in (
        lambda: Appender("gs://bucket/rows.jsonl", Problem),
        lambda: checkpoint.save_model("gs://bucket/model", Metadata(tiny.CONFIG, "abc"), {}, "tokenizer"),
    ):
        with pytest.raises(UserError, match=r"gs://bucket/\S+ must be on this disk"):
            asked()


def test_a_relative_path_leads_through_a_link(tmp_path):
    (tmp_path / "disk" / "runs").mkdir(parents=True)
    (tmp_path / "models" / "base").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk" / "runs")
    run = tmp_path / "runs" / "lora"
    path = RunFolder(tmp_path / "models" / "base").relative_to(run)
    run.mkdir()
    assert RunFolder(run).follow(path).path.samefile(tmp_path / "models" / "base")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    assert RunFolder(tmp_path / "link" / "base").relative_to(tmp_path / "plain") == "../link/base"  # as it is named
    written_before = os.path.relpath(tmp_path / "models" / "base", run)  # as if no folder were a link
    assert RunFolder(run).follow(written_before).path.samefile(tmp_path / "models" / "base")


def test_what_is_of_another_name_stays_and_a_link_stays_one(tmp_path):
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "thesis.txt").write_text("mine")
    (tmp_path / "page.html.tmp").write_text("mine")
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").write_text("of a command that was killed")
    for name in ("out", "link"):
        with RunFolder(tmp_path / name).fresh() as made:
            (made / "file").write_text(name)
        assert (tmp_path / name / "file").read_text() == name
    storage.write(tmp_path / "page.html", "page")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "out.tmp" / "thesis.txt").read_text() == (tmp_path / "page.html.tmp").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["out.tmp", "page.html.tmp", "disk", "link", "out", "page.html"]
    )


def test_a_folder_that_cannot_be_replaced_is_refused_before_work(tmp_path, monkeypatch):
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / ".lock").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "ismount", lambda path: Path(path).name == "mount")
        with pytest.raises(UserError, match="mount cannot be replaced by a whole folder; name one in it"):
            RunFolder(tmp_path / "mount").is_made(lambda: "")
    monkeypatch.chdir(tmp_path)
    for here in (".", "", tmp_path):
        with pytest.raises(UserError, match="is the folder that the command runs in; name another"):
            RunFolder(here).is_made(lambda: "")


def test_the_store_is_known_as_a_path_too(bucket):
    RunFolder(f"{bucket}/run").write("a", "1")
    assert str(RunFolder(Path(f"{bucket}/run"))) == f"{bucket}/run"
    assert (storage.place(Path(f"{bucket}/run")) / "a").read_text() == "1"


def test_without_its_package_the_store_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'lema_jax\[gcs\]'"):
        checkpoint.read_metadata("gs://bucket/run")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbf{}\n", r"f:1: begins with a byte-order mark \(BOM\) of UTF-8"),
        ("{}\n".encode("utf-16"), r"f:1: begins with a byte-order mark \(BOM\) of UTF-16"),
        (b"one\ntwo\nth\xffree\n", r"f:3: not UTF-8 text \(byte 0xff\)"),
    ],
)
def test_text_from_outside_names_what_is_wrong_with_it_and_its_line(tmp_path, content, expected):
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(UserError, match=expected):
        storage.read_text(tmp_path / "f")
    with pytest.raises(UserError, match=expected), open(tmp_path / "f", "rb") as file:
        [storage.decoded(line, tmp_path / "f", number) for number, line in storage.lines(file, tmp_path / "f")]


def test_a_line_that_is_no_row_is_not_read_whole(tmp_path):
    with open(tmp_path / "f", "wb") as file:
        file.write(b"{}\n")
        file.truncate(3 * storage.LONGEST_LINE)
    with pytest.raises(UserError, match=r"f:2: a line of more than"), open(tmp_path / "f", "rb") as file:
        list(storage.lines(file, tmp_path / "f"))
