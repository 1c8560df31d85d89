"""The data set on disk: ArrayRecord files of a TFDS builder, without TensorFlow.

A folder has `dataset_info.json`, `features.json` and the shards (any TFDS reads them), `lengths.npy`, `tokenizer/`,
`examples.jsonl` (record k is its line k + 1) and the data card, with the SHA-256 of the other files, which are checked
on reading. Equal examples give equal bytes. A record of a pair is its chosen and its rejected sequence, one after the
other; `lengths.npy` then has a third column, the tokens of the chosen one.
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
    tokens: int  # without padding
    loss_tokens: int  # completions and EOS
    longest: int  # tokens of the longest example


class _Info(tfds.core.DatasetInfo):
    """What TFDS knows of the data set: only what is written here."""

    def initialize_from_bucket(self) -> None:
        """Looks nowhere: TFDS would leave an empty folder among the temporary files for each data set."""


class Builder(tfds.core.GeneratorBasedBuilder):
    """Writes encoded examples in order. Features: `tokens` int32[T], `weights` uint8[T]."""

    VERSION = tfds.core.Version("1.0.0")
    name = "lema"
    url_infos = None  # no downloads: a search for checksums needs a package that TFDS does not install

    def __init__(self, examples: Sequence[Encoded], **kwargs: Any):
        self._examples = examples
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "tokens": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "weights": tfds.features.Tensor(shape=(None,), dtype=np.uint8),
        }
        return _Info(
            builder=self,
            description="Tokenised training examples; weights are 1 where there is loss.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the records keep the order of examples.jsonl; training shuffles
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for number, example in enumerate(self._examples):
            yield number, {"tokens": example.tokens, "weights": example.weights}

    def _example_writer(self) -> tfds.core.writer.ExampleWriter:
        return _CanonicalWriter(self.info.file_format)


class _CanonicalWriter(tfds.core.writer.ExampleWriter):
    """Sorts the entries of protocol-buffer maps, whose order otherwise changes from run to run."""

    def write(self, path: Any, examples: Any) -> Any:
        return super().write(path, ((key, _canonical(record)) for key, record in examples))


def _canonical(record: bytes) -> bytes:
    return tf_example_pb2.Example.FromString(record).SerializeToString(deterministic=True)


def write_records(examples: Sequence[Encoded], folder: Path) -> Counts:
    """Writes TFDS's files and `lengths.npy` into `folder`, which exists and has none of them; returns their size."""
    with tempfile.TemporaryDirectory(dir=folder) as workplace:
        made = Builder(examples, data_dir=workplace)
        tfds.disable_progress_bar()
        with contextlib.redirect_stdout(io.StringIO()):  # it reports a download that does not happen
            made.download_and_prepare()
        for file in sorted(Path(made.data_dir).iterdir()):
            file.rename(folder / file.name)
    found = _lengths(examples)
    content = io.BytesIO()
    np.save(content, found)
    storage.write(folder / _LENGTHS, content.getvalue())
    return _counts(found)


def count(examples: Sequence[Encoded]) -> Counts:
    """The size of a data set of these examples."""
    return _counts(_lengths(examples))


def _lengths(examples: Sequence[Encoded]) -> np.ndarray:
    """[N, 2] int32: tokens and loss tokens of each; [N, 3] of pairs, see `lengths`."""
    sizes = [
        (len(one.tokens), int(one.weights.sum()), *([] if one.chosen is None else [one.chosen])) for one in examples
    ]
    return np.array(sizes, np.int32) if sizes else np.zeros((0, 2), np.int32)


def check(folder: str | Path, *, only: str = "", all_files: bool = False) -> None:
    """Checks the files of a data set that training reads against the checksums in its card.

    Args:
      only: check this file alone.
      all_files: also check files that training does not read.

    Raises:
      UserError: a file is missing or damaged.
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
        digests.warn_once(f"{folder} has no card.json: damage to its files goes unnoticed")
    read = lambda name: name == only if only else all_files or name.rpartition("/")[0] in ("", "tokenizer")
    chosen = {name: digest for name, digest in files.items() if read(name)}
    digests.compare(folder, chosen, "restore it from a copy, or build the data set again")


def lengths(folder: str | Path) -> np.ndarray:
    """[N, 2] int32: tokens and loss tokens of each record; [N, 3] of pairs, with the tokens of the chosen sequence.

    Raises:
      UserError: the folder is not a data set, or has no examples.
    """
    file = storage.here(folder) / _LENGTHS
    if file.is_file():
        check(folder, only=_LENGTHS)
    try:
        found = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        why = f"there is no {_LENGTHS}" if isinstance(error, FileNotFoundError) else f"{file}: {error}"
        raise UserError(f"no data set at {folder} ({why}); make one with lema_jax.build_data") from None
    if not len(found):
        raise UserError(f"the data set at {folder} has no examples; see the counts of its filters in its README.md")
    return found


def has_examples(folder: str | Path) -> bool:
    """Whether a dev set has examples to measure a loss on; False where it has questions alone, without rationales.

    Raises:
      UserError: its examples are missing.
    """
    home = storage.here(folder)
    if (home / _LENGTHS).is_file() or not (home / "problems.jsonl").is_file():
        return True  # or it is no dev set, which `lengths` says
    check(folder, only=_LENGTHS)
    return False


def has_pairs(folder: str | Path) -> bool:
    """Whether the data set is of preference pairs; see `lengths` for errors."""
    return lengths(folder).shape[1] > 2


def counts(folder: str | Path) -> Counts:
    """The size of the data set; see `lengths` for errors."""
    return _counts(lengths(folder))


def _counts(lengths: np.ndarray) -> Counts:
    tokens, loss_tokens = lengths[:, :2].sum(axis=0, dtype=np.int64)
    return Counts(len(lengths), int(tokens), int(loss_tokens), int(lengths[:, 0].max(initial=0)))


class Records(Sequence[dict[str, np.ndarray]]):
    """Random access to the records: `tokens` [T] int32 and `weights` [T] uint8 each.

    Attributes:
      chosen: [N], of pairs the tokens of each record's chosen sequence; None of examples.

    Raises:
      UserError: the folder is not a data set, its shards and `lengths.npy` differ in number, or (on access) a shard is
        missing or damaged.
    """

    def __init__(self, folder: str | Path):
        self._folder = folder
        sizes = lengths(folder)
        expected = len(sizes)
        self.chosen = sizes[:, 2] if sizes.shape[1] > 2 else None
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


def prompt_style(folder: str | Path) -> str:
    """How the questions of a data set are asked, and so those of a model that learns from it."""
    made = card.read(RunFolder(folder).local())
    return made.prompt_style if made else "paper"


def fingerprint(folder: str | Path) -> str:
    """16 hex digits of the bytes of the records and the tokenizer: the identity of a run's training data.

    Raises:
      UserError: the folder is not a data set.
    """
    lengths(folder)
    check(folder)
    digest = hashlib.sha256()
    shards = storage.here(folder).glob("*.array_record*")
    tokenizer = storage.here(f"{folder}/tokenizer").glob("*.json")
    for file in sorted(shards) + sorted(tokenizer):
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
