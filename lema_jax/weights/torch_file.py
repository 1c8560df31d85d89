"""Reads tensors from a file of `torch.save` (`.bin`) without torch and without executing its pickle.

The file is a zip of a pickle, which builds the tensors, and their raw bytes. A pickle may call anything, so its opcodes
are parsed (by `pickletools`, which executes nothing) and interpreted here for what a state dict consists of. Any other
call is refused by name.
"""

import dataclasses
import math
import os
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from lema_jax.errors import UserError
from lema_jax.weights.names import Index

_STORAGES: dict[str, np.dtype] = {
    "torch FloatStorage": np.dtype(np.float32),
    "torch DoubleStorage": np.dtype(np.float64),
    "torch HalfStorage": np.dtype(np.float16),
    "torch BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
}
_DICT, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_MARK = object()


@dataclasses.dataclass(frozen=True)
class _Name:
    """A module and a name in it, as written in the pickle; never imported."""

    text: str


@dataclasses.dataclass(frozen=True)
class _Tensor:
    key: str  # file in the zip
    dtype: np.dtype
    offset: int  # in elements, as are the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchFile:
    """The tensors of a state dict as a `names.Source`.

    Raises:
      UserError: the file is missing, damaged, of a torch before 1.6, or calls what a state dict of floats does not.
    """

    def __init__(self, path: str | Path):
        self.where = str(path)
        try:
            with zipfile.ZipFile(path) as opened:
                (program,) = (name for name in opened.namelist() if name.endswith("/data.pkl"))
                self._data = program.removesuffix(".pkl") + "/"
                _check_sizes(opened, self.where)
                state = _interpret(opened.read(program), self.where)
        except UserError:
            raise
        except (
            *(OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError),
            *(LookupError, TypeError, AttributeError, OverflowError, MemoryError),
        ) as error:
            raise UserError(f"{path} is not a file of torch.save (1.6 or later), or is cut short ({error})") from None
        if not isinstance(state, dict) or not all(isinstance(value, _Tensor) for value in state.values()):
            raise UserError(f"{path} does not hold a state dict, a dict of tensors by name")
        self._tensors: dict[str, _Tensor] = state

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        return self._tensors[name].dtype

    def read(self, name: str, index: Index) -> np.ndarray:
        tensor = self._tensors[name]
        try:
            with zipfile.ZipFile(self.where) as opened:
                stored = np.frombuffer(opened.read(self._data + tensor.key), tensor.dtype)[tensor.offset :]
        except (KeyError, ValueError, zipfile.BadZipFile):
            raise UserError(f"{self.where}: the bytes of {name} are missing or damaged") from None
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides))
        least = min((*tensor.strides, *tensor.shape, tensor.offset))
        if least < 0 or (last >= stored.size > 0) or math.prod(tensor.shape) > stored.size:
            raise UserError(f"{self.where}: {name} reaches beyond its bytes")
        strides = [stride * stored.itemsize for stride in tensor.strides]
        return np.lib.stride_tricks.as_strided(stored, tensor.shape, strides, writeable=False)[index]


def _check_sizes(opened: zipfile.ZipFile, where: str) -> None:
    """Refuses a zip bomb unread: torch.save does not compress, so that no part is larger than the file."""
    size = os.path.getsize(where)
    for part in opened.infolist():
        if part.compress_type != zipfile.ZIP_STORED or part.file_size > size:
            raise UserError(
                f"{where} is refused: {part.filename} in it unpacks to {part.file_size:,} bytes, where the file has "
                f"{size:,} and torch.save does not compress; ask for safetensors"
            )


def _interpret(program: bytes, where: str) -> Any:
    """The object that the pickle describes: dicts, tuples, numbers, strings and `_Tensor`s."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(program):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack[-1]
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "TUPLE":
                stack.append(tuple(_to_mark(stack)))
            case "SETITEM":
                *_, target, key, value = stack
                target[key] = value
                del stack[-2:]
            case "SETITEMS":
                items = _to_mark(stack)
                stack[-1].update(zip(items[::2], items[1::2]))
            case "BUILD":
                stack.pop()  # a state dict's `_metadata`, versions of modules
            case "GLOBAL":
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(("storage", *stack.pop()[1:]))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_call(function, arguments, where))
            case _:
                raise UserError(f"{where} is refused: its pickle has the opcode {opcode.name}; nothing was run")
    raise ValueError("the pickle does not end")


def _to_mark(stack: list[Any]) -> list[Any]:
    start = len(stack) - 1 - stack[::-1].index(_MARK)
    taken = stack[start + 1 :]
    del stack[start:]
    return taken


def _call(function: Any, arguments: tuple[Any, ...], where: str) -> Any:
    """The two calls in a state dict: `OrderedDict()` and the rebuilding of a tensor."""
    if function == _Name(_DICT) and not arguments:
        return {}
    if function == _Name(_TENSOR):
        (_, storage, key, _, _), offset, shape, strides, *_ = arguments
        if storage.text not in _STORAGES:
            raise UserError(f"{where}: a tensor of {storage.text} is there, but only floats can be read")
        return _Tensor(key, _STORAGES[storage.text], offset, shape, strides)
    named = function.text.replace(" ", ".") if isinstance(function, _Name) else repr(function)
    raise UserError(f"{where} is refused: its pickle asks to call {named}; nothing was run; ask for safetensors")
