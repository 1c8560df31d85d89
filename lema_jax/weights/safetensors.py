"""Weights of a Hugging Face folder: one `model.safetensors`, or several under an index."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.weights.names import Index, Source, cast, read_whole

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_OF_BIN = (
    "they are pickles, which can run code; where transformers and torch are installed, convert them with "
    "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(other_folder)"
)


class Safetensors:
    """The tensors of safetensors files as a `names.Source`, read on demand.

    Raises:
      UserError: missing or damaged files, tensors in two files, and tensors that are not floats, all named.
    """

    def __init__(self, files: Iterable[Path], where: str):
        self.where = where
        self._at: dict[str, tuple[Path, tuple[int, ...], np.dtype]] = {}
        problems: list[str] = []
        for file in files:
            try:
                problems += self._list(file)
            except FileNotFoundError:
                problems.append(f"{file.name} is missing; copy it here")
            except (SafetensorError, OSError) as error:
                problems.append(f"{file.name} is cut short or damaged; copy it again ({error})")
        if problems:
            raise UserError(f"{where} cannot be read:\n  " + "\n  ".join(problems))

    def _list(self, file: Path) -> list[str]:
        problems = []
        with safe_open(file, "np") as opened:
            for name in opened.keys():  # noqa: SIM118 (not a dict)
                part = opened.get_slice(name)
                kind = _DTYPES.get(part.get_dtype())
                if kind is None:
                    problems.append(
                        f"{name} in {file.name} is stored as {part.get_dtype()}, but only floats can be read; take the "
                        "model's unquantised release"
                    )
                    continue
                if name in self._at:
                    problems.append(f"{name} is in {self._at[name][0].name} and in {file.name}")
                self._at[name] = (file, tuple(part.get_shape()), kind)
        return problems

    def names(self) -> list[str]:
        return list(self._at)

    def file(self, name: str) -> str:
        """The name of the file with a tensor."""
        return self._at[name][0].name

    def shape(self, name: str) -> tuple[int, ...]:
        return self._at[name][1]

    def dtype(self, name: str) -> np.dtype:
        return self._at[name][2]

    def read(self, name: str, index: Index) -> np.ndarray:
        # Opened for each read: the pages of a file that stays mapped would count as this process's memory.
        with safe_open(self._at[name][0], "np") as opened:
            return opened.get_slice(name)[index]


def open_folder(folder: str | Path) -> Safetensors:
    """The weights of a Hugging Face folder.

    Raises:
      UserError: there are none, or only `.bin` files; an index that disagrees with its files; see `Safetensors`.
    """
    folder = Path(folder)
    if (folder / SINGLE).exists():  # first, as transformers does where both are there
        return Safetensors([folder / SINGLE], str(folder / SINGLE))
    if (folder / INDEX).exists():
        return _open_index(folder / INDEX)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
        raise UserError(f"{folder} has only .bin or .pth weights: {_OF_BIN}")
    raise UserError(f"{folder} has neither {SINGLE} nor {INDEX}; is it a Hugging Face model folder?")


def _open_index(path: Path) -> Safetensors:
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        listed = {str(name): str(file) for name, file in files.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is no index of safetensors files ({error!r})") from None
    outside = sorted({file for file in listed.values() if Path(file).name != file})
    if outside:
        raise UserError(f"{path} names files outside of its folder: {', '.join(outside)}")
    source = Safetensors([path.parent / file for file in sorted(set(listed.values()))], str(path))
    problems = []
    for name in sorted(listed.keys() | set(source.names())):
        found = source.file(name) if name in source.names() else "no file"
        if found != listed.get(name, "no file"):
            problems.append(f"{name} is in {found}; the index says {listed.get(name, 'nothing')}")
    if problems:
        raise UserError(f"{path} disagrees with its files:\n  " + "\n  ".join(problems))
    return source


def save(folder: Path, source: Source, dtype: np.dtype | None, shard_bytes: int | None, single: str = SINGLE) -> None:
    """Writes tensors into an existing folder: one file if they fit into `shard_bytes`, else several and an index.

    Memory: the tensors of one file.

    Args:
      dtype: of the stored tensors; None for the source's.
      shard_bytes: maximal size of a file; a larger tensor has a file of its own. None for one file.
      single: name of the file if there is only one.
    """
    sizes = {name: math.prod(source.shape(name)) * (dtype or source.dtype(name)).itemsize for name in source.names()}
    shards: list[list[str]] = [[]]
    for name in sizes:
        if shard_bytes and shards[-1] and sum(map(sizes.__getitem__, shards[-1])) + sizes[name] > shard_bytes:
            shards.append([])
        shards[-1].append(name)
    files = [f"model-{number + 1:05}-of-{len(shards):05}.safetensors" for number in range(len(shards))]
    if len(shards) == 1:
        files = [single]
    for file, names in zip(files, shards):
        kinds = {name: dtype or source.dtype(name) for name in names}
        stored = {name: np.ascontiguousarray(cast(read_whole(source, name), kinds[name], name)) for name in names}
        path = folder / file
        path.touch()
        mode = path.stat().st_mode  # by the umask; the library writes files that only the owner can read
        save_file(stored, path, metadata={"format": "pt"})
        path.chmod(mode)
    if len(shards) > 1:
        weight_map = {name: file for file, names in zip(files, shards) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        storage.write(folder / INDEX, json.dumps(index, indent=2) + "\n")
