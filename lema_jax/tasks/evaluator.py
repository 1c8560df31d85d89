r"""The value of an expression tree at a point: a Fraction if rational, else an mpmath number of the given precision.

The size of every number and the work of a verdict (`allow`) are bounded, so that no text can hang the caller.
"""

import functools
import math
import operator
import random
import threading
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeAlias

import mpmath
from mpmath.ctx_mp import MPContext

from lema_jax.tasks import tokens
from lema_jax.tasks.latex import Node

Value: TypeAlias = Fraction | Any  # or mpmath's mpf and mpc

POINTS = 6
_LARGEST = 100_000  # bits of an exact number; of the exponent of an inexact one
_MOST_WORK = 30_000  # of one verdict, in nodes; large numbers count by the square of their length
_MOST_TERMS = 2_000  # of a sum or a product


class TooLarge(Exception):
    """A number too large to compute, such as 9^{9^{9}}."""


class Exhausted(Exception):
    """The work budget of a verdict is used up."""


class Undefined(Exception):
    """No value: a division by zero, a function outside its domain."""


_LOCAL = threading.local()


def allow() -> None:
    """Starts a verdict in this thread: resets its work budget."""
    _LOCAL.work = _MOST_WORK


def context() -> MPContext:
    """This thread's mpmath context, which holds the precision."""
    if not hasattr(_LOCAL, "context"):
        _LOCAL.context = MPContext()
    return _LOCAL.context


@functools.lru_cache(maxsize=4_096)
def _number_of(name: str, point: int) -> Fraction:
    """A variable's value at a point: positive at the first two, of either sign at the others."""
    rng = random.Random(f"{name} {point}")
    size = Fraction(rng.randint(20, 300), 97)
    return size if point < 2 or rng.random() < 0.5 else -size


class Evaluator:
    """Evaluates one tree at one point, and records how large its intermediate numbers were.

    `given` fixes the values of some variables; the others have a pseudo-random value at each point.
    """

    def __init__(self, bits: int, point: int = 0, given: Mapping[str, Fraction] | None = None):
        self.ctx = context()
        self.ctx.prec = self.bits = bits
        self.point = point
        self.given = dict(given or {})
        self.in_angle = False
        self.left_reals = False  # whether an operation on real numbers gave a complex one
        self.largest = 0  # bits of the exact numbers
        self.scale = 0  # the binary exponent of the largest inexact number

    def value(self, node: Node) -> Value:
        """The value of a node.

        Raises:
          Undefined: it has none.
          TooLarge: it exceeds the bounds.
        """
        operation = _OPERATIONS.get(node[0])
        if operation is None:
            raise Undefined
        try:
            found = operation(self, *node[1:])
        except (ArithmeticError, ValueError, TypeError, mpmath.libmp.NoConvergence):
            raise Undefined from None
        if isinstance(found, Fraction):
            bits = found.numerator.bit_length() + found.denominator.bit_length()
            self.largest = max(self.largest, bits)
        else:
            magnitude = self.ctx.mag(found)
            if self.ctx.isnan(found) or self.ctx.isinf(found):
                raise Undefined
            bits = 0 if found == 0 else abs(magnitude)
            self.scale = max(self.scale, 0 if found == 0 else magnitude)
        self.spend(1 + (max(bits, self.bits) // 500) ** 2)
        if bits > _LARGEST:
            raise TooLarge
        return found

    def spend(self, work: int) -> None:
        """Takes work from the verdict's budget.

        Raises:
          Exhausted: the budget is used up.
        """
        _LOCAL.work = getattr(_LOCAL, "work", _MOST_WORK) - work
        if _LOCAL.work < 0:
            raise Exhausted

    def inexact(self, node: Node) -> Value:
        """The value of a node as an mpmath number."""
        return self.rounded(self.value(node))

    def rounded(self, number: Value) -> Value:
        if not isinstance(number, Fraction):
            return number
        found = self.ctx.mpf(number.numerator) / number.denominator
        self.scale = max(self.scale, self.ctx.mag(found) if found else 0)
        return found

    def both(self, one: Node, other: Node) -> tuple[Value, Value]:
        """Two values of one type: both exact, or neither."""
        values = self.value(one), self.value(other)
        if all(isinstance(value, Fraction) for value in values):
            return values
        return self.rounded(values[0]), self.rounded(values[1])

    def natural(self, node: Node, most: int = _LARGEST) -> int | None:
        """The value of a node if it is a natural number."""
        number = self.value(node)
        if not isinstance(number, Fraction) or number.denominator != 1 or number < 0:
            return None
        if number > most:
            raise TooLarge
        return int(number)

    def from_reals(self, result: Value, *operands: Value) -> Value:
        """The result; records if it is complex though the operands are real."""
        if self.ctx.im(result) != 0 and not any(self.ctx.im(self.rounded(operand)) for operand in operands):
            self.left_reals = True
        return result


# --- operations -------------------------------------------------------------------------------------------------------


def _variable(of: Evaluator, name: str) -> Value:
    return of.given[name] if name in of.given else _number_of(name, of.point)


def _constant(of: Evaluator, name: str) -> Value:
    if name == "infinity":
        raise Undefined
    return of.ctx.mpc(0, 1) if name == "i" else +getattr(of.ctx, name)


def _power(of: Evaluator, base: Node, exponent: Node) -> Value:
    return _raised(of, of.value(base), of.value(exponent))


def _raised(of: Evaluator, base: Value, exponent: Value) -> Value:
    if isinstance(exponent, Fraction):
        if exponent.denominator > 1:
            return _raised(of, _rooted(of, base, exponent.denominator), Fraction(exponent.numerator))
        if isinstance(base, Fraction):
            bits = abs(exponent) * (max(base.numerator.bit_length(), base.denominator.bit_length()) - 1)
            if bits > _LARGEST:
                raise TooLarge
            of.spend(int(bits // 500) ** 2)
            return base ** int(exponent)
    base, power = of.rounded(base), of.rounded(exponent)
    if base == 0:
        if of.ctx.re(power) <= 0:
            raise Undefined
        return base
    if of.ctx.mag(power) > 20 or abs(of.ctx.mag(base)) * abs(power) > _LARGEST:
        raise TooLarge
    return of.from_reals(of.ctx.power(base, int(exponent) if isinstance(exponent, Fraction) else power), base, power)


def _root(of: Evaluator, radicand: Node, degree: Node) -> Value:
    index = of.value(degree)
    if isinstance(index, Fraction) and index.denominator == 1 and index > 0:
        return _rooted(of, of.value(radicand), int(index))
    return of.from_reals(of.ctx.power(of.inexact(radicand), 1 / of.rounded(index)), of.inexact(radicand))


def _rooted(of: Evaluator, radicand: Value, degree: int) -> Value:
    """The principal root; the real one of a negative number for an odd degree."""
    if degree > _LARGEST:
        raise Undefined
    if degree % 2 and not of.ctx.im(of.rounded(radicand)) and radicand < 0:
        return -_rooted(of, -radicand, degree)
    if isinstance(radicand, Fraction) and radicand >= 0:
        top, bottom = (_exact_root(part, degree) for part in (radicand.numerator, radicand.denominator))
        if top is not None and bottom is not None:
            return Fraction(top, bottom)
    number = of.rounded(radicand)
    found = of.ctx.sqrt(number) if degree == 2 else of.ctx.power(number, of.ctx.mpf(1) / degree)
    return of.from_reals(found, number)


def _exact_root(number: int, degree: int) -> int | None:
    """The natural number of which `number` is the power, if any."""
    if degree == 2:
        root = math.isqrt(number)
    elif number < 2:
        root = number
    else:  # Newton's method, from above
        root, lower = 1 << -(-number.bit_length() // degree), 0
        while lower < root:
            lower = ((degree - 1) * root + number // root ** (degree - 1)) // degree
            root, lower = (lower, 0) if lower < root else (root, root)
    return root if root**degree == number else None


def _factorial(of: Evaluator, operand: Node, step: int = 1) -> Value:
    number = of.value(operand)
    if not isinstance(number, Fraction) or number.denominator != 1:
        return of.ctx.factorial(of.rounded(number)) if step == 1 else of.ctx.fac2(of.rounded(number))
    if number < 0:
        raise Undefined
    if number > _LARGEST // 16:
        raise TooLarge
    of.spend((int(number) // 40) ** 2)
    return Fraction(math.prod(range(int(number), 0, -step)) if step > 1 else math.factorial(int(number)))


def _chosen(of: Evaluator, total: Node, chosen: Node, ordered: bool = False) -> Value:
    n, k = of.value(total), of.value(chosen)
    if isinstance(n, Fraction) and isinstance(k, Fraction) and n.denominator == k.denominator == 1 and n >= 0 <= k:
        if int(n).bit_length() * min(k, n if ordered else abs(n - k)) > _LARGEST:
            raise TooLarge
        return Fraction((math.perm if ordered else math.comb)(int(n), int(k)))
    n, k = of.rounded(n), of.rounded(k)
    return of.ctx.binomial(n, k) * (of.ctx.factorial(k) if ordered else 1)


def _floor(of: Evaluator, operand: Node, sign: int = 1) -> Value:
    number = of.value(operand)
    if isinstance(number, Fraction):
        return Fraction(sign * math.floor(sign * number))
    if of.ctx.im(number):
        raise Undefined
    near = of.ctx.nint(number)  # rounding may move an integer
    whole = near if abs(number - near) < of.ctx.mpf(2) ** (-of.bits // 2) else sign * of.ctx.floor(sign * number)
    return Fraction(int(whole))


def _absolute(of: Evaluator, operand: Node) -> Value:
    return abs(of.value(operand))


def _modulo(of: Evaluator, operand: Node, modulus: Node) -> Value:
    one, other = of.both(operand, modulus)
    return one % other


def _of_several(function: Callable[..., Any]) -> Callable[..., Value]:
    def operation(of: Evaluator, *operands: Node) -> Value:
        numbers = [of.value(operand) for operand in operands]
        if function in (math.gcd, math.lcm):
            if any(number != int(number) for number in numbers):
                raise Undefined
            return Fraction(function(*map(int, numbers)))
        return function(numbers, key=of.rounded)

    return operation


def _series(of: Evaluator, product: bool, name: str, start: Node, stop: Node, body: Node) -> Value:
    first, last = of.value(start), of.value(stop)
    if not isinstance(first, Fraction) or not isinstance(last, Fraction) or (last - first).denominator > 1:
        raise Undefined
    if last - first > _MOST_TERMS:
        raise TooLarge
    total: Value = Fraction(int(product))
    before = of.given.get(name)
    for step in range(int(last - first) + 1):
        of.given[name] = first + step
        term = of.value(body)
        if isinstance(total, Fraction) != isinstance(term, Fraction):
            total, term = of.rounded(total), of.rounded(term)
        total = total * term if product else total + term
        of.spend(1 + (total.numerator.bit_length() // 500) ** 2 if isinstance(total, Fraction) else 1)
    of.given.pop(name, None)
    if before is not None:
        of.given[name] = before
    return total


def _unknown(of: Evaluator, name: str, *arguments: Node) -> Value:
    """An unknown function has a pseudo-random value for each value of its arguments."""
    numbers = [of.value(argument) for argument in arguments]
    if not all(isinstance(number, Fraction) for number in numbers):
        raise Undefined
    return _number_of(f"{name}({', '.join(map(str, numbers))})", 0)


def _elsewhere(of: Evaluator, node: Node) -> Value:
    """The value at a point that no verdict uses, for constants of proportionality."""
    point, of.point = of.point, POINTS
    found = of.value(node)
    of.point = point
    return found


def _degrees(of: Evaluator, operand: Node) -> Value:
    """Degrees convert to radians only inside a trigonometric function."""
    return of.inexact(operand) * of.ctx.pi / 180 if of.in_angle else of.value(operand)


def _function(name: str) -> Callable[..., Value]:
    def operation(of: Evaluator, operand: Node, base: Node | None = None) -> Value:
        before, of.in_angle = of.in_angle, of.in_angle or name in _OF_ANGLES
        argument = of.inexact(operand)
        of.in_angle = before
        of.spend((of.bits // 250) ** 2)
        if name not in _OF_ANGLES and name in ("exp", "sinh", "cosh", "tanh") and of.ctx.mag(argument) > 20:
            raise TooLarge
        if name in _OF_ANGLES and of.ctx.mag(argument) > of.bits // 4:
            raise Undefined  # the precision leaves no digit of the angle modulo 2π
        if name in ("ln", "log", "lg"):
            divisor = of.ctx.ln(of.inexact(base)) if base else 1 if name == "ln" else of.ctx.ln(10)
            return of.from_reals(of.ctx.ln(argument) / divisor, argument)
        if name == "cis":
            return of.ctx.expj(argument)
        return of.from_reals(getattr(of.ctx, _MPMATH.get(name, name))(argument), argument)

    return operation


_OF_ANGLES = tokens.names("sin cos tan cot sec csc cis")
_MPMATH = {f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")}
_OPERATIONS: dict[str, Callable[..., Value]] = {
    "number": lambda of, number: number,
    "variable": _variable,
    "constant": _constant,
    "+": lambda of, one, other: operator.add(*of.both(one, other)),
    "-": lambda of, one, other: operator.sub(*of.both(one, other)),
    "*": lambda of, one, other: operator.mul(*of.both(one, other)),
    "/": lambda of, one, other: operator.truediv(*of.both(one, other)),
    "negative": lambda of, operand: -of.value(operand),
    "%": lambda of, operand: of.value(operand) / 100,
    "^": _power,
    "root": _root,
    "!": _factorial,
    "!!": lambda of, operand: _factorial(of, operand, step=2),
    "binomial": _chosen,
    "permutations": lambda of, total, chosen: _chosen(of, total, chosen, ordered=True),
    "floor": _floor,
    "ceiling": lambda of, operand: _floor(of, operand, sign=-1),
    "absolute": _absolute,
    "mod": _modulo,
    "sum": lambda of, *parts: _series(of, False, *parts),
    "product": lambda of, *parts: _series(of, True, *parts),
    "unknown": _unknown,
    "at": _elsewhere,
    "\\degree": _degrees,
    "\\gcd": _of_several(math.gcd),
    "\\lcm": _of_several(math.lcm),
    "\\max": _of_several(max),
    "\\min": _of_several(min),
    **{name: _function(name[1:]) for name in tokens.FUNCTIONS - {"\\gcd", "\\lcm", "\\max", "\\min", "\\det"}},
}
