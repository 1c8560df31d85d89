"""Parses the HLO text of a compiled program: computations of instructions with shapes, operands and attributes.

It parses what `cost` needs, as the TPU compiler prints it: a Pallas kernel's metadata has raw newlines inside an
instruction, and a computation for another core ends in `}, execution_thread="sparsecore"`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_SPACE = re.compile(r"S\((\d+)\)")


@dataclasses.dataclass(frozen=True)
class Array:
    """A result of an instruction. `space`: the memory space; 0 is HBM, others are on the core (VMEM, SMEM, flags)."""

    dtype: str
    dims: tuple[int, ...]
    space: int

    @property
    def bytes(self) -> float:
        """Size without the padding of tiling."""
        bits = re.search(r"\d+", self.dtype)
        return math.prod(self.dims) * (int(bits.group()) if bits else 8 if self.dtype == "pred" else 0) / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`name = results opcode(operands), attributes`; a tuple has several results."""

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str
    root: bool

    @property
    def bytes(self) -> float:
        """Size of all results."""
        return sum(array.bytes for array in self.results)

    def attribute(self, name: str) -> str | None:
        """The value of `name=…`, without a leading %, braces or quotes."""
        found = re.search(rf'\b{name}=(?:"([^"]*)"|\{{([^{{}}]*)\}}|%?([\w.\-]+))', self.attributes)
        return next((text for text in found.groups() if text is not None), None) if found else None

    def computations(self, *names: str) -> list[str]:
        """The names of computations in these attributes: one each, or a list in braces."""
        found = [self.attribute(name) for name in names]
        return [part.strip(" %") for text in found if text for part in text.split(",")]

    @functools.cached_property
    def cycles(self) -> int:
        """The compiler's estimate in clock cycles; 0 if it has none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found.group(1)) if found else 0

    @functools.cached_property
    def source(self) -> str:
        """The JAX operation that it comes from, such as `jit(train_step)/…/dot_general`; may be empty."""
        return self.attribute("op_name") or ""


class Computation:
    """Instructions by name, in the order of their execution."""

    def __init__(self, name: str):
        self.name = name
        self.instructions: dict[str, Instruction] = {}

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions.values())

    def get(self, name: str) -> Instruction | None:
        """The instruction, or None if it is not in this computation."""
        return self.instructions.get(name)

    @functools.cached_property
    def root(self) -> Instruction:
        """The instruction with the computation's results."""
        return next(one for one in self if one.root)

    @functools.cached_property
    def parameters(self) -> dict[int, str]:
        """Names of the parameters by index."""
        return {int(one.literal): one.name for one in self if one.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that have a value as operand."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for one in self:
            for operand in set(one.operands):
                found.setdefault(operand, []).append(one)
        return found

    def constant(self, name: str) -> int | None:
        """The value of an integer constant, or None."""
        one = self.get(name)
        return int(one.literal) if one and one.opcode == "constant" and one.literal.lstrip("-").isdigit() else None


@dataclasses.dataclass(frozen=True)
class Module:
    """Every computation by name, and the entry computation."""

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str) -> Module:
    """The module whose text `compiled.as_text()` returns.

    Raises:
      ValueError: text without an entry computation.
    """
    computations: dict[str, Computation] = {}
    entry = current = None
    for line in re.sub(r'\n(?="|\}\})', "", text).split("\n"):
        if current is None:
            if head := _HEAD.match(line):
                current = computations[head.group(2)] = Computation(head.group(2))
                entry = current if head.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif parts := _LINE.match(line):
            one = _instruction(parts.group(2), parts.group(3), bool(parts.group(1)))
            current.instructions[one.name] = one
    if entry is None:
        raise ValueError("the text has no entry computation; is it HLO?")
    return Module(computations, entry)


def _instruction(name: str, text: str, root: bool) -> Instruction:
    results, rest = _results(text)
    opcode, _, rest = rest.partition("(")
    inside, attributes = _closing(rest)
    literal = inside if opcode in ("parameter", "constant") else ""
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name, opcode, results, operands, literal, attributes, root)


def _results(text: str) -> tuple[tuple[Array, ...], str]:
    if text.startswith("("):
        inside, rest = _closing(text[1:])
    else:
        inside, _, rest = text.partition(" ")
    arrays = (
        Array(dtype, tuple(map(int, filter(None, dims.split(",")))), _space(layout))
        for dtype, dims, layout in _ARRAY.findall(inside)
    )
    return tuple(arrays), rest.lstrip()


def _space(layout: str) -> int:
    found = _SPACE.search(layout)
    return int(found.group(1)) if found else 0


def _closing(text: str) -> tuple[str, str]:
    """The text before and after the parenthesis that closes one already open."""
    depth = 1
    for at in re.finditer(r"[()]", text):
        depth += 1 if at.group() == "(" else -1
        if depth == 0:
            return text[: at.start()], text[at.end() :]
    return text, ""
