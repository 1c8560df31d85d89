"""The data set on disk: ArrayRecord files that a TFDS builder writes, without TensorFlow.

A folder holds `dataset_info.json`, `features.json` and the shards (any TFDS reads them), `lengths.npy`, `tokenizer/`,
`examples.jsonl` (record k is its line k + 1) and the data card, which has the SHA-256 of the others: they are compared
when the data set is read. Equal examples give equal bytes.
"""

import contextlib
import dataclasses
import hashlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from lema_jax import digests, storage
from lema_jax.data import card
from lema_jax.data.encode import Encoded
from lema_jax.errors import UserError
from lema_jax.storage import RunFolder

SPLIT = "train"
_LENGTHS = "lengths.npy"


@dataclasses.dataclass(frozen=True)
class Counts:
    """The size of a data set."""

    examples: int
    tokens: int  # all that a model reads, padding apart
    loss_tokens: int  # those that are learned: completions and EOS
    longest: int  # tokens of the longest example


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes encoded examples in their order. Features: `tokens` int32[T], `weights` uint8[T]."""

    VERSION = tfds.core.Version("1.0.0")
    name = "lema"
    url_infos = None  # nothing is downloaded; looking for checksums would need a package that TFDS does not install

    def __init__(self, examples: Sequence[Encoded], **kwargs: Any):
        self._examples = examples
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "tokens": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "weights": tfds.features.Tensor(shape=(None,), dtype=np.uint8),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Tokenised training examples; weights are 1 where there is loss.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # record k stays line k of examples.jsonl; training shuffles anew each epoch
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for number, example in enumerate(self._examples):
            yield number, {"tokens": example.tokens, "weights": example.weights}

    def _example_writer(self) -> tfds.core.writer.ExampleWriter:
        return _CanonicalWriter(self.info.file_format)


class _CanonicalWriter(tfds.core.writer.ExampleWriter):
    """Protocol buffers write a map's entries in an order that changes from run to run; this one sorts them."""

    def write(self, path: Any, examples: Any) -> Any:
        return super().write(path, ((key, _canonical(record)) for key, record in examples))


def _canonical(record: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


def write_records(examples: Sequence[Encoded], folder: Path) -> None:
    """Writes TFDS's files and `lengths.npy` into `folder` (which exists and has none of them)."""
    with tempfile.TemporaryDirectory(dir=folder) as workplace:
        made = Builder(examples, data_dir=workplace)
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # it announces a download that does not happen
            made.download_and_prepare()
        for file in sorted(Path(made.data_dir).iterdir()):
            file.rename(folder / file.name)
    lengths = [(len(example.tokens), int(example.weights.sum())) for example in examples]
    content = io.BytesIO()
    np.save(content, np.array(lengths, np.int32).reshape(-1, 2))
    storage.write(folder / _LENGTHS, content.getvalue())


def check(folder: str | Path, *, only: str = "", all_files: bool = False) -> None:
    """Compares the files of a data set that training reads with what its card says of them.

    Args:
      only: the one file to look at.
      all_files: also those below that training does not read.

    Raises:
      UserError: one is missing or damaged.
    """
    home = RunFolder(folder)
    places = ((home, ""), (home.follow(".."), f"{home.path.name}/"))  # a dev set is in the card of its data set
    cards = ((card.read(place.local()), prefix) for place, prefix in places)
    made, prefix = next(((made, prefix) for made, prefix in cards if made is not None), (None, ""))
    files = {
        name.removeprefix(prefix): digest
        for name, digest in (made.files if made else {}).items()
        if name.startswith(prefix)
    }
    if not files:
        digests.warn_once(f"{folder} has no card.json: damage to its files would not be noticed")
    read = lambda name: name == only if only else all_files or name.rpartition("/")[0] in ("", "tokenizer")
    chosen = {name: digest for name, digest in files.items() if read(name)}
    digests.compare(folder, chosen, "bring it back from a copy, or build the data set again")


def lengths(folder: str | Path) -> np.ndarray:
    """[N, 2] int32: tokens and loss tokens of each record.

    Raises:
      UserError: the folder is no data set, or has no examples.
    """
    file = storage.here(folder) / _LENGTHS
    if file.is_file():
        check(folder, only=_LENGTHS)
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"no data set at {folder} ({file}: {error}); make one with lema_jax.build_data") from None
    if not len(found):
        raise UserError(f"the data set at {folder} has no examples; see the counts of its filters in its README.md")
    return found


def counts(folder: str | Path) -> Counts:
    """The size of the data set; see `lengths` for errors."""
    found = lengths(folder)
    tokens, loss_tokens = found.sum(axis=0, dtype=np.int64)
    return Counts(len(found), int(tokens), int(loss_tokens), int(found[:, 0].max()))


class Records(Sequence[dict[str, np.ndarray]]):
    """The records by random access: `tokens` [T] int32 and `weights` [T] uint8 each.

    Raises:
      UserError: the folder is no data set, its shards do not have as many records as `lengths.npy`, or (on access) a
        shard is lost or damaged.
    """

    def __init__(self, folder: str | Path):
        self._folder = folder
        expected = len(lengths(folder))
        check(folder)
        try:
            self._source = tfds.builder_from_directory(storage.here(folder)).as_data_source(split=SPLIT)
        except Exception as error:  # TFDS raises many kinds for a damaged folder
            raise UserError(f"cannot read the data set at {folder}: {error}; build it again") from error
        if len(self) != expected:
            raise UserError(f"{folder}: {len(self)} records but {expected} lengths; build it again")

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(number)
        try:
            return self._source[number]
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"{self._folder}: record {number} cannot be read ({error}); build it again") from error


def fingerprint(folder: str | Path) -> str:
    """16 hex digits of the data's and its tokenizer's bytes: what a run was trained on.

    Raises:
      UserError: the folder is no data set.
    """
    lengths(folder)
    check(folder)
    digest = hashlib.sha256()
    shards = storage.here(folder).glob("*.array_record*")
    words = storage.here(f"{folder}/tokenizer").glob("*.json")
    for file in sorted(shards) + sorted(words):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
