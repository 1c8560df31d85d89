"""The data set on disk: TFDS reads it, equal examples are equal bytes in every process."""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_datasets.proto import tf_example_pb2

from lema_jax.data import dataset
from lema_jax.data.encode import Encoded
from lema_jax.errors import UserError


def encoded(sizes: list[int]) -> list[Encoded]:
    return [Encoded(np.arange(n, dtype=np.int32) + k, (np.arange(n) > 1).astype(np.uint8)) for k, n in enumerate(sizes)]


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


@settings(max_examples=6, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_records_come_back_in_their_order(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder = tmp_path_factory.mktemp("data")
    examples = encoded(sizes)
    dataset.write_records(examples, folder)
    records = dataset.Records(folder)
    assert len(records) == len(examples)
    for record, example in zip(records, examples):
        assert record["tokens"].dtype == np.int32
        assert record["weights"].dtype == np.uint8
        assert np.array_equal(record["tokens"], example.tokens)
        assert np.array_equal(record["weights"], example.weights)
    assert dataset.lengths(folder).tolist() == [[n, max(0, n - 2)] for n in sizes]


def test_nothing_is_left_among_temporary_files(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    dataset.write_records(encoded([3]), tmp_path / "data")
    assert not list((tmp_path / "temporary").iterdir())


def test_any_tfds_reads_it(tmp_path: Path) -> None:
    dataset.write_records(encoded([5, 9]), tmp_path)
    source = tfds.builder_from_directory(tmp_path).as_data_source(split="train")
    assert [len(row["tokens"]) for row in source] == [5, 9]
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_the_order_of_features_in_a_record_makes_no_difference() -> None:
    def one(name: str) -> bytes:
        example = tf_example_pb2.Example()
        example.features.feature[name].int64_list.value.append(7)
        return example.SerializeToString()

    there, back = one("tokens") + one("weights"), one("weights") + one("tokens")  # joined messages are merged
    assert there != back
    assert dataset._canonical(there) == dataset._canonical(back)


_WRITE = """
import sys, pathlib
from lema_jax.data import dataset
from tests.data.test_dataset import encoded
dataset.write_records(encoded([7, 300, 12] * 200), pathlib.Path(sys.argv[1]))
"""


@pytest.mark.long
def test_equal_examples_are_equal_bytes_in_every_process(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", _WRITE, str(tmp_path / name)], check=True)
        found.append(hashes(tmp_path / name))
    assert found[0] == found[1]


def test_fingerprint_is_of_data_and_tokenizer(tmp_path: Path) -> None:
    def made(name: str, sizes: list[int], words: str) -> str:
        folder = tmp_path / name
        (folder / "tokenizer").mkdir(parents=True)
        (folder / "tokenizer" / "tokenizer.json").write_text(words)
        (folder / "README.md").write_text(name)
        dataset.write_records(encoded(sizes), folder)
        return dataset.fingerprint(folder)

    first = made("a", [3, 4], "{}")
    assert made("b", [3, 4], "{}") == first
    assert made("c", [4, 3], "{}") != first
    assert made("d", [3, 4], "[]") != first


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    for ask in (dataset.lengths, dataset.counts, dataset.Records, dataset.fingerprint):
        with pytest.raises(UserError, match=f"no data set at {tmp_path}.*build_data"):
            ask(tmp_path)


def test_shards_and_lengths_must_agree(tmp_path: Path) -> None:
    dataset.write_records(encoded([3, 4]), tmp_path)
    np.save(tmp_path / "lengths.npy", np.array([[3, 1]], np.int32))
    with pytest.raises(UserError, match="2 records but 1 lengths"):
        dataset.Records(tmp_path)
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"name": "other"}))
    with pytest.raises(UserError, match="cannot read the data set"):
        dataset.Records(tmp_path)
