"""Walks a compiled program and counts what one run of it does on one chip, loops by their trip counts.

XLA's own `cost_analysis()` counts the body of a loop once, and a layer stack is a loop; so are the products that it
overlaps with their collectives. Here a loop's cost is its body's times its trips, a branch's that of its dearest arm.

HBM bytes are those that instructions read and write there: a fusion reads of a sliced operand what the slices take, an
update in place writes what it updates, and what lies in the chip's core (VMEM) costs nothing. Copies between HBM and
VMEM beside the computation (`dma_bytes`) are in `hbm_bytes`, but not in the times, which take them to be hidden.

Interconnect bytes are those that a chip sends over its links by the ring algorithms: for n chips (n - 1) / n of the
whole for an all-gather or reduce-scatter, twice that for an all-reduce. Between slices n is the slices': the compiler
makes of a collective that crosses them one within each slice and a `send` and `recv` by way of the hosts, whose
attributes say what the hosts do together and among which slices.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from lema_jax.ahead import hlo, kernels
from lema_jax.ahead.hlo import Computation, Instruction, Program
from lema_jax.ahead.loops import trips
from lema_jax.parallel.chips import Chip

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_FREE = (
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id"),
    *("opt-barrier", "iota", "add-dependency"),
)
_COPIES = ("copy-start", "slice-start", "dynamic-slice-start")
_SLICES = ("dynamic-slice", "slice", "gather")
_UPDATES = {"dynamic-update-slice": 1, "scatter": -1}  # which operand is written
_BETWEEN_SLICES = "_xla_megascale_transfer_type"  # an attribute of what the hosts carry to other slices


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction. `bytes` that a chip sends each time; `source`: where the program asked for it.

    `between_slices`: over the data centre's network, among as many slices as `group` says; else over the chips' links.
    """

    kind: str
    group: int
    bytes: float
    times: float
    dtype: str
    source: str
    between_slices: bool = False

    @property
    def total(self) -> float:
        return self.bytes * self.times


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a run does on one chip.

    Attributes:
      flops: of matrix products; of Pallas kernels, those of attention (its causal half).
      hbm_bytes, dma_bytes: see above.
      roof_s: Σ over instructions of the longer of flops at the chip's peak and HBM bytes at 90 % of its bandwidth.
      hybrid_s: the same with the compiler's own cycle estimates for fusions that hold matrix products.
      collectives: every one of them.
      open_loops: loops whose trip count is not in the program, each counted as one trip.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    dma_bytes: float = 0.0
    roof_s: float = 0.0
    hybrid_s: float = 0.0
    kernels: int = 0
    collectives: tuple[Collective, ...] = ()
    open_loops: tuple[str, ...] = ()

    def __add__(self, other: "Cost") -> "Cost":
        sums: dict[str, Any] = {
            field.name: getattr(self, field.name) + getattr(other, field.name) for field in dataclasses.fields(Cost)
        }
        return Cost(**sums)

    def times(self, count: int) -> "Cost":
        """The cost of doing it that often."""
        again = tuple(dataclasses.replace(one, times=one.times * count) for one in self.collectives)
        numbers = ("flops", "hbm_bytes", "dma_bytes", "roof_s", "hybrid_s", "kernels")
        return dataclasses.replace(self, collectives=again, **{name: count * getattr(self, name) for name in numbers})

    @property
    def ici_bytes(self) -> float:
        """Sent over the interconnect."""
        return sum(one.total for one in self.collectives if not one.between_slices)

    @property
    def dcn_bytes(self) -> float:
        """Sent to other slices, over the data centre's network."""
        return sum(one.total for one in self.collectives if one.between_slices)


def count(text: str, chip: Chip) -> Cost:
    """The cost of the program that `compiled.as_text()` prints."""
    program = hlo.read(text)
    return _Walker(program, chip).cost(program.entry)


class _Walker:
    def __init__(self, program: Program, chip: Chip):
        self._all, self._chip = program.computations, chip

    def cost(self, computation: Computation) -> Cost:
        """Of a computation that runs once."""
        seen: set[tuple[str, str]] = set()  # kinds and channels: what is cloned within a computation happens once
        return functools.reduce(Cost.__add__, (self._one(computation, one, seen) for one in computation), Cost())

    def _one(self, inside: Computation, one: Instruction, seen: set[tuple[str, str]]) -> Cost:
        opcode = one.opcode
        if opcode in _FREE or opcode.endswith("-done"):
            return Cost()
        if opcode == "while":
            often = trips(self._all, inside, one)
            body = self.cost(self._all[one.computations("body")[0]])
            return body.times(1 if often is None else often) + Cost(open_loops=() if often else (one.source,))
        if opcode == "call":
            return self.cost(self._all[one.computations("to_apply")[0]])
        if opcode == "conditional":
            arms = one.computations("true_computation", "false_computation", "branch_computations")
            return max((self.cost(self._all[arm]) for arm in arms), key=lambda arm: (arm.flops, arm.hbm_bytes))
        if opcode in _COPIES:
            return self._copy(inside, one)
        if opcode.removesuffix("-start") in COLLECTIVES:
            return Cost(collectives=tuple(self._collective(inside, one, seen)))
        if opcode in ("send", "recv"):
            moved = one.results[0].bytes
            sent = (_between_slices(one),) if opcode == "send" and _BETWEEN_SLICES in one.attributes else ()
            return Cost(hbm_bytes=moved, dma_bytes=moved, collectives=sent)
        if opcode == "custom-call" and one.attribute("custom_call_target") != "tpu_custom_call":
            return Cost()
        return self._work(inside, one, seen)

    def _work(self, inside: Computation, one: Instruction, seen: set[tuple[str, str]]) -> Cost:
        """An instruction that computes: a fusion, a kernel, a matrix product, an elementwise operation."""
        flops, cycles, calls = 0.0, one.cycles, 0
        collectives: list[Collective] = []
        if one.opcode == "custom-call":
            flops, calls = kernels.flops(one, inside), 1
        elif one.opcode in ("fusion", "async-start"):
            for name in one.computations("calls"):
                flops += self._fused(self._all[name], seen, collectives)
        else:
            flops = product_flops(one, inside)
        moved = self._bytes(inside, one)
        compute, memory = flops / self._chip.flops, moved / (0.9 * self._chip.hbm_bandwidth)
        roof = max(compute, memory)
        hybrid = max(cycles / self._chip.clock, memory) if flops and cycles else roof
        return Cost(flops, moved, 0.0, roof, hybrid, calls, tuple(collectives))

    def _fused(self, computation: Computation, seen: set[tuple[str, str]], collectives: list[Collective]) -> float:
        # An asynchronous collective stands in three fusions: where it starts, in one that computes meanwhile (of a loop
        # inside, even) and where it ends. An all-reduce that keeps a slice is carried out as a reduce-scatter.
        starts = any(_is_call(one, "AsyncCollectiveStart") for one in computation)
        scatters = "all-reduce-scatter" in computation.name
        flops = 0.0
        for one in computation:
            if one.opcode in ("fusion", "call"):
                for name in one.computations("calls", "to_apply"):
                    flops += self._fused(self._all[name], seen, collectives)
            elif one.opcode.removesuffix("-start") in COLLECTIVES:
                if starts or scatters:
                    kind = "reduce-scatter" if scatters else None
                    collectives += self._collective(computation, one, seen, kind)
            else:
                flops += product_flops(one, computation)
        return flops

    def _collective(
        self, inside: Computation, one: Instruction, seen: set[tuple[str, str]], kind: str | None = None
    ) -> list[Collective]:
        kind = kind or one.opcode.removesuffix("-start")
        # A collective that crosses slices hands its channel to every part that it is made of.
        channel = kind, one.attribute("channel_id") or one.name
        if channel in seen:
            return []
        seen.add(channel)
        group = group_size(one)
        taken = sum(source.bytes for name in one.operands if (source := inside.get(name)))
        made = max(one.bytes - taken, 0.0) if one.opcode.endswith("-start") else one.bytes
        return [Collective(kind, group, _sent(kind, group, taken, made), 1, one.results[0].dtype, one.source)]

    def _copy(self, inside: Computation, one: Instruction) -> Cost:
        """A copy beside the computation: result, and how many of its two ends lie in HBM."""
        moved = min((array.bytes for array in one.results if math.prod(array.dims) > 1), default=0.0)
        ends = [array for array in one.results if array.bytes == moved] + [
            array for name in one.operands if (source := inside.get(name)) for array in source.results
        ]
        moved *= max(1, min(2, sum(array.space == 0 for array in ends[:2])))
        return Cost(hbm_bytes=moved, dma_bytes=moved)

    def _bytes(self, inside: Computation, one: Instruction) -> float:
        """HBM bytes that an instruction reads and writes."""
        if one.opcode in _SLICES:
            return sum(array.bytes for array in one.results if array.space == 0) + one.bytes
        if one.opcode in _UPDATES:
            update = inside.get(one.operands[_UPDATES[one.opcode]])
            return 2 * update.bytes if update else 0.0
        fused = self._all[one.computations("calls")[0]] if one.opcode == "fusion" else None
        total = 0.0
        for position, name in enumerate(one.operands):
            source = inside.get(name)
            if source is None or len(source.results) != 1 or source.results[0].space:
                continue
            total += self._read(fused, fused.parameters[position], source.bytes) if fused else source.bytes
        if fused is None:
            return total + sum(array.bytes for array in one.results if array.space == 0)
        root = fused.root
        parts = root.operands if root.opcode == "tuple" else (root.name,)
        if len(parts) != len(one.results):
            return total
        return total + sum(
            self._written(fused, part, array.bytes) for part, array in zip(parts, one.results) if array.space == 0
        )

    def _read(self, fused: Computation, name: str, whole: float) -> float:
        """Bytes of a value that a fused computation touches."""
        total = 0.0
        for user in fused.users[name]:
            first = user.operands[0] == name
            if user.opcode in _SLICES:
                total += user.bytes if first else 0.0
            elif (user.opcode in _UPDATES and first) or user.opcode == "tuple" or _hands_on(user):
                continue
            elif user.opcode in ("bitcast", "reshape") or _is_call(user, "AssumeGather"):
                total += self._read(fused, user.name, whole)
            elif user.opcode in ("fusion", "call"):
                inner = self._all[user.computations("calls", "to_apply")[0]]
                total += sum(
                    self._read(inner, inner.parameters[position], whole)
                    for position, operand in enumerate(user.operands)
                    if operand == name
                )
            else:
                return whole
        return min(total, whole)

    def _written(self, fused: Computation, name: str, whole: float) -> float:
        """Bytes of a result that a fused computation writes."""
        one = fused.get(name)
        if one is None or one.opcode in ("parameter", "get-tuple-element", "custom-call") or _hands_on(one):
            return 0.0
        if one.opcode in _UPDATES:
            update = fused.get(one.operands[_UPDATES[one.opcode]])
            return update.bytes if update else 0.0
        if one.opcode == "bitcast":
            return self._written(fused, one.operands[0], whole)
        if one.opcode == "fusion":
            inner = self._all[one.computations("calls")[0]]
            return self._written(inner, inner.root.name, whole) if inner.root.opcode != "tuple" else whole
        return whole


def _hands_on(one: Instruction) -> bool:
    """A collective, or the start or end of one: its traffic is the interconnect's."""
    return one.opcode.removesuffix("-start") in COLLECTIVES or _is_call(one, "AsyncCollective")


def _is_call(one: Instruction, target: str) -> bool:
    return one.opcode == "custom-call" and target in (one.attribute("custom_call_target") or "")


def _sent(kind: str, group: int, taken: float, made: float) -> float:
    """Bytes that a member of a group sends, of a collective that takes so many from it and makes so many for it."""
    share = (group - 1) / max(group, 1)
    whole = {"all-gather": made * share, "all-reduce": 2 * taken * share, "collective-permute": taken}
    return whole.get(kind, taken * share)


def _between_slices(one: Instruction) -> Collective:
    """What a `send` to the hosts' runtime asks of it: a collective among slices, written `{1,2}x{0:3}` (slices × chips)
    or as the groups of chips that it is among, or a permutation."""
    transfer = (one.attribute(_BETWEEN_SLICES) or "").lower().replace("_", "-")
    kind = {"one-to-one": "collective-permute"}.get(transfer, transfer)
    found = re.search(r'_xla_megascale_target="?\{+([^{}]*)\}', one.attributes)
    group = 2 if kind == "collective-permute" or not found else found.group(1).count(",") + 1
    taken = one.results[0].bytes
    return Collective(kind, group, _sent(kind, group, taken, taken * group), 1, one.results[0].dtype, one.source, True)


def group_size(one: Instruction) -> int:
    """How many chips take part in a collective with each other; 2 for a permutation."""
    text = one.attributes
    if "source_target_pairs=" in text:
        return 2
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", text):
        return int(found.group(1))
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return found.group(1).count(",") + 1
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", found.group(1)))
        # A part of an axis is written 'axis':(offset)size.
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found.group(2))
        return math.prod(int(part or sizes.get(axis, 1)) for axis, part in parts)
    return 1


def product_flops(one: Instruction, inside: Computation) -> float:
    """2 × multiplications of a `dot` or `convolution` (which the TPU compiler makes of dots); 0 for others."""
    if one.opcode not in ("dot", "convolution"):
        return 0.0
    left, right = (inside.instructions[name].results[0].dims for name in one.operands[:2])
    if one.opcode == "dot":
        summed = [int(at) for at in (one.attribute("lhs_contracting_dims") or "").split(",") if at]
        return 2.0 * math.prod(one.results[0].dims) * math.prod(left[at] for at in summed)
    return _convolution_flops(one, left, right, one.results[0].dims)


def _convolution_flops(one: Instruction, left: Sequence[int], right: Sequence[int], made: Sequence[int]) -> float:
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    assert found, one.name
    lhs, rhs, out = found.groups()
    window = dict(pair.split("=") for pair in (one.attribute("window") or "").split())

    def of(name: str, at: int, default: int, read: Callable[[str], int] = int) -> int:
        return read(window[name].split("x")[at]) if name in window else default

    products = 2.0 * made[out.index("b")] * made[out.index("f")] * right[rhs.index("i")]
    for at in range(sum(label.isdigit() for label in rhs)):
        label = str(at)
        products *= _overlaps(
            taps=right[rhs.index(label)],
            inputs=left[lhs.index(label)],
            outputs=made[out.index(label)],
            stride=of("stride", at, 1),
            pad=of("pad", at, 0, lambda text: int(text.split("_")[0])),
            spread=of("lhs_dilate", at, 1),
            reach=of("rhs_dilate", at, 1),
        )
    return products / int(one.attribute("batch_group_count") or 1)


@functools.cache
def _overlaps(*, taps: int, inputs: int, outputs: int, stride: int, pad: int, spread: int, reach: int) -> int:
    """Pairs of output and tap that meet an input and not padding or a hole of dilation."""
    extent = (inputs - 1) * spread + 1
    places = (at * stride - pad + tap * reach for at in range(outputs) for tap in range(taps))
    return sum(0 <= place < extent and place % spread == 0 for place in places)
