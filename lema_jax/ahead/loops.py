"""Trip counts of loops in a compiled program, from the counter's initial value, step and limit."""

import dataclasses
from collections.abc import Mapping

from lema_jax.ahead.hlo import Computation, Instruction


@dataclasses.dataclass(frozen=True)
class _Affine:
    """Element `index` of the loop's state plus `offset`; the constant `offset` if `index` is None."""

    index: int | None
    offset: int


def trips(computations: Mapping[str, Computation], inside: Computation, loop: Instruction) -> int | None:
    """The trip count of a `while` that counts up to a constant; None for any other condition."""
    body, condition = (computations[loop.computations(name)[0]] for name in ("body", "condition"))
    found = _limit(computations, condition, condition.root, {})
    if found is None:
        return None
    index, limit = found
    state = _chase(inside, loop.operands[0])
    if body.root.opcode != "tuple" or state is None or state.opcode != "tuple":
        return None
    after = _value(computations, body, body.root.operands[index], {})
    first = _value(computations, inside, state.operands[index], {})
    if after is None or after.index != index or after.offset < 1:
        return None
    start = first.offset if first is not None and first.index is None else 0
    return max(0, -(-(limit - start) // after.offset))


def _limit(
    computations: Mapping[str, Computation], inside: Computation, one: Instruction, given: Mapping[int, _Affine | None]
) -> tuple[int, int] | None:
    """(counter's index in the state, exclusive limit) of a condition `counter < constant`."""
    if one.opcode == "fusion":
        fused = computations[one.computations("calls")[0]]
        arguments = {at: _value(computations, inside, name, given) for at, name in enumerate(one.operands)}
        return _limit(computations, fused, fused.root, arguments)
    if one.opcode in ("copy", "bitcast") and (source := inside.get(one.operands[0])):
        return _limit(computations, inside, source, given)
    if one.opcode != "compare":
        return None
    left, right = (_value(computations, inside, name, given) for name in one.operands)
    direction = one.attribute("direction")
    if direction in ("GT", "GE"):
        left, right, direction = right, left, {"GT": "LT", "GE": "LE"}[direction]
    if left is None or right is None or left.index is None or right.index is not None:
        return None
    if direction not in ("LT", "LE", "NE"):
        return None
    return left.index, right.offset - left.offset + (direction == "LE")


def _value(
    computations: Mapping[str, Computation], inside: Computation, name: str, given: Mapping[int, _Affine | None]
) -> _Affine | None:
    one = inside.get(name)
    if one is None:
        return None
    if one.opcode == "constant":
        number = inside.constant(name)
        return None if number is None else _Affine(None, number)
    if one.opcode == "parameter":
        return given.get(int(one.literal))
    if one.opcode == "get-tuple-element":
        source = inside.get(one.operands[0])
        return _Affine(int(one.attribute("index") or 0), 0) if source and source.opcode == "parameter" else None
    if one.opcode in ("copy", "bitcast", "convert", "reshape"):
        return _value(computations, inside, one.operands[0], given)
    if one.opcode == "fusion":
        fused = computations[one.computations("calls")[0]]
        arguments = {at: _value(computations, inside, operand, given) for at, operand in enumerate(one.operands)}
        return _value(computations, fused, fused.root.name, arguments)
    if one.opcode in ("add", "subtract"):
        left, right = (_value(computations, inside, operand, given) for operand in one.operands)
        if left is None or right is None:
            return None
        if one.opcode == "subtract":
            return _Affine(left.index, left.offset - right.offset) if right.index is None else None
        if left.index is None or right.index is None:
            index = left.index if left.index is not None else right.index
            return _Affine(index, left.offset + right.offset)
    return None


def _chase(inside: Computation, name: str) -> Instruction | None:
    one = inside.get(name)
    while one is not None and one.opcode in ("copy", "bitcast", "opt-barrier"):
        one = inside.get(one.operands[0])
    return one
