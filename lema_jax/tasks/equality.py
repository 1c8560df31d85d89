r"""Equality of two mathematical answers, by their forms."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

from lema_jax.tasks import curves, evaluator, forms, latex, reals, tokens, units, values, words
from lema_jax.tasks.forms import Form
from lema_jax.tasks.latex import Node

_DEGREE: Node = ("/", ("constant", "pi"), ("number", Fraction(180)))
_AXES = ("\\hat{i}", "\\hat{j}", "\\hat{k}")
_COMMON = frozenset(("\\frac", "\\sqrt", "\\pi", "\\degree", "\\infty", "\\cdots", "\\binom"))


def same(answer: str, gold: str) -> bool | None:
    """Whether two answers in plain presentation are equal; None if undecidable here.

    Symmetric, except for what an answer may add to the gold: `x^2 + y^2 = 4` answers 4, but 4 does not answer a circle.
    A comparison that exceeds its bounds is False: computer algebra would not do better.
    """
    evaluator.allow()
    try:
        return _same(forms.read(answer), forms.read(gold))
    except (evaluator.Exhausted, RecursionError):
        return False


def _same(one: Form, other: Form) -> bool | None:
    try:
        return _compare(one, other)
    except evaluator.TooLarge:
        return False


def _compare(one: Form, other: Form) -> bool | None:
    if one.tokens == other.tokens and one.unit == other.unit:
        return True
    if one.unit and other.unit and one.unit.dimension == other.unit.dimension and one.unit.size != other.unit.size:
        return _same_quantities(one, other)
    return next(rule(one, other) for kind, rule in _RULES if kind in (one.kind, other.kind))


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def _each(these: Sequence[Form], those: Sequence[Form]) -> bool | None:
    """Whether both have the same length and are equal element by element."""
    return _all([_same(*pair) for pair in zip(these, those)]) if len(these) == len(those) else False


def _same_texts(one: Form, other: Form) -> bool:
    """Word by word; `odd` may be tokenised as a product of variables."""
    if one.kind == other.kind:
        return one.text == other.text != ""
    return words.plain(one.tokens).replace(" ", "") == words.plain(other.tokens).replace(" ", "") != ""


# --- expressions, quantities, ratios, residues ------------------------------------------------------------------------


def _same_expressions(one: Form, other: Form) -> bool | None:
    """By value; 25% equals both 25 and a quarter, 60° both 60 and a third of π."""
    left, right = _node(one), _node(other)
    if left is None or right is None:
        if "\\cdots" in (*one.tokens, *other.tokens):
            return False  # the dots have no value
        if (verdict := _same_figures(one, other)) is not None:
            return verdict
        return None if all(_node(form) is not None or _is_for_algebra(form) for form in (one, other)) else False
    if (verdict := values.same(left, right)) is not False:
        return verdict
    ends = [form.tokens[-2:] for form in (one, other)]
    if ends[0] != ends[1] and all(end in (("+", "c"), ("+", "C")) for end in ends):  # a constant of integration
        return _same(*(dataclasses.replace(form, tokens=form.tokens[:-2]) for form in (one, other)))
    for sign, size in (("%", None), ("\\degree", _DEGREE)):
        marked = [node[0] == sign for node in (left, right)]
        if any(marked):
            bare = [node[1] if mark else node for node, mark in zip((left, right), marked)]
            if values.same(*bare):
                return True
            if size and not all(marked):
                return values.same(*(("*", node, size) if mark else node for node, mark in zip(bare, marked)))
    return _same_without_letters(one, other)


def _same_figures(one: Form, other: Form) -> bool | None:
    r"""`\angle ABC` equals `\angle CBA`, and triangles ignore the order of corners; None unless both are figures."""
    names = ["".join(form.tokens[1:]).lstrip(tokens.WORD) for form in (one, other)]
    if (
        one.tokens[0] != other.tokens[0]
        or one.tokens[0] not in ("\\angle", "\\triangle")
        or not "".join(names).isalpha()
    ):
        return None
    return names[0] in (names[1], names[1][::-1]) or (
        one.tokens[0] == "\\triangle" and sorted(names[0]) == sorted(names[1])
    )


def _node(form: Form) -> Node | None:
    return latex.read(form.tokens)


def _same_without_letters(answer: Form, gold: Form) -> bool | None:
    """A letter after an answer's number is a unit if the gold is a number without it: `5 m`."""
    bare = units.without_letter(answer.tokens)
    quantity, number = latex.read(tuple(bare or ())), _node(gold)
    if quantity is None or number is None or latex.variables(quantity) or latex.variables(number):
        return False
    return values.same(quantity, number)


def _same_quantities(one: Form, other: Form) -> bool | None:
    nodes = [_node(form) for form in (one, other)]
    if nodes[0] is None or nodes[1] is None or one.unit is None or other.unit is None:
        return None
    return values.same(
        *(("*", node, ("number", form.unit.size)) for node, form in zip(nodes, (one, other)) if form.unit and node)
    )


def _same_ratios(one: Form, other: Form) -> bool | None:
    """2:4:6 equals 1:2:3, and 3:4 three quarters; two times of day are compared as times."""
    if {one.kind, other.kind} == {"ratio", "time"}:
        time, ratio = (one, other) if one.kind == "time" else (other, one)
        return words.same_time(time.text, "".join(ratio.tokens))
    if one.kind == other.kind and all(map(_may_be_time, (one, other))) and len(one.parts) * len(other.parts) < 9:
        return words.same_time(*("".join(form.tokens) for form in (one, other)))
    if one.kind == other.kind and ("\\cdots",) in (part.tokens for part in (*one.parts, *other.parts)):
        return _each(one.parts, other.parts)
    parts = [
        [_node(part) for part in form.parts] if form.kind == "ratio" else [_node(form), ("number", Fraction(1))]
        for form in (one, other)
    ]
    if len(parts[0]) != len(parts[1]):
        return False
    if {one.kind, other.kind} - {"ratio", "expression"}:
        return False
    if None in parts[0] or None in parts[1]:
        return None
    (first, *these), (start, *those) = parts
    return _all([values.same(("*", start, this), ("*", first, that)) for this, that in zip(these, those)])


def _may_be_time(ratio: Form) -> bool:
    """Whether it may be a time: `20:34`, or `20:34:00`."""
    hours, *rest = "".join(ratio.tokens).split(":")
    sexagesimal = all(len(part) == 2 and part.isdigit() and int(part) < 60 for part in rest)
    return hours.isdigit() and len(hours) <= 2 and len(rest) in (1, 2) and sexagesimal


def _same_residues(one: Form, other: Form) -> bool | None:
    if one.kind == other.kind:
        moduli = [_node(form.parts[1]) for form in (one, other)]
        residues = [_node(form.parts[0]) for form in (one, other)]
        if None in moduli or None in residues:
            return None
        distance = ("mod", ("-", residues[0], residues[1]), moduli[0])
        return _all([values.same(*moduli), values.is_zero(distance)])
    residue, number = (one, other) if one.kind == "residue" else (other, one)
    return _same(residue.parts[0], number)


def _same_choices(one: Form, other: Form) -> bool | None:
    r"""`(A) 5` equals both A and 5."""
    if one.kind == other.kind:
        return one.text == other.text
    choice, form = (one, other) if one.kind == "choice" else (other, one)
    if choice.parts:
        return _same(choice.parts[0], form)
    letter = dataclasses.replace(choice, kind="expression", tokens=(choice.text,))
    return _same(letter, form) if form.kind in ("expression", "equation") else False


# --- lists, tuples, vectors -------------------------------------------------------------------------------------------


def _distinct(parts: Sequence[Form]) -> list[Form]:
    found: list[Form] = []
    for part in parts:
        if not any(_same(part, other) for other in found):
            found.append(part)
    return found


def _same_lists(one: Form, other: Form) -> bool | None:
    """As sets; but a gold without braces counts repetitions, and three or more names are ordered."""
    if one.kind != other.kind:
        return _one_of_list(one, other)
    these, those = _distinct(one.parts), _distinct(other.parts)
    if len(those) < len(other.parts) and other.tokens[:1] != ("\\{",):
        these, those = list(one.parts), list(other.parts)
    if len(these) != len(those):
        return False
    if len(these) > 2 and all(form.kind == "text" for form in (*these, *those)):
        return _each(these, those)
    left, unsure = those, False
    for one in these:
        open_ = False
        for at, other in enumerate(left):
            verdict = _same(one, other)
            if verdict:
                del left[at]
                break
            open_ = open_ or verdict is None
        else:
            if not open_:
                return False
            unsure = True
    return None if unsure else True


def _one_of_list(one: Form, other: Form) -> bool | None:
    """`x = 3, y = 5` equals (3, 5); a list that repeats one answer equals that answer."""
    several, form = (one, other) if one.kind == "list" else (other, one)
    if form.kind in ("tuple", "matrix") and (assigned := _assigned(several.parts)):
        return _each(assigned, form.parts)
    if several is one and several.tokens[1:2] == (",",) and ("".join(several.tokens).replace(",", "."),) == form.tokens:
        return True  # a decimal comma
    parts = _distinct(several.parts)
    return _same(parts[0], form) if len(parts) == 1 else False


def _assigned(parts: Sequence[Form]) -> list[Form] | None:
    """The values of variables, each given once; in the order x, y, z if these are their names, else as given."""
    if not all(part.kind == "equation" and curves.is_name(part.parts[0].tokens) for part in parts):
        return None
    named = {part.parts[0].tokens: part.parts[1] for part in parts}
    if len(named) < len(parts):
        return None
    usual = all(name[0] in ("x", "y", "z") for name in named)
    return [named[name] for name in (sorted(named) if usual else named)]


def _same_tuples(one: Form, other: Form) -> bool | None:
    r"""Element by element, in the same brackets; a column and `3\hat{i} + 4\hat{j}` are tuples of coordinates."""
    if one.kind == other.kind:
        return one.text == other.text and _each(one.parts, other.parts)
    these, those = _coordinates(one), _coordinates(other)
    if these is None or those is None:
        return None if any(map(_is_unread, (one, other))) else False
    return _each(these, those)


def _coordinates(form: Form) -> Sequence[Form] | None:
    if form.kind == "tuple":
        return form.parts if form.text in ("()", "[]") else None
    if form.kind == "matrix":
        sizes = form.text.split()
        return form.parts if len(sizes) == 1 or set(sizes) == {"1"} else None
    if not set(_AXES) & set(form.tokens) or _node(form) is None:
        return None
    axes = _AXES if _AXES[2] in form.tokens else _AXES[:2]
    return [Form("expression", tuple(t for token in form.tokens for t in _digit(token, axis)), ()) for axis in axes]


def _digit(token: str, axis: str) -> tuple[str, ...]:
    return ("(", "1" if token == axis else "0", ")") if token in _AXES else (token,)


def _same_sequences(one: Form, other: Form) -> bool | None:
    """Term by term; arithmetic progressions by their definition, however many terms are written."""
    if one.kind != other.kind:
        return False
    progressions = _progression(one.parts), _progression(other.parts)
    if progressions[0] and progressions[1]:
        return progressions[0] == progressions[1]
    return _each(one.parts, other.parts)


def _progression(parts: Sequence[Form]) -> tuple[Fraction, Fraction, Fraction | None] | None:
    """First term, difference and last term (None if infinite) of an arithmetic progression with `…`."""
    at = next(at for at, part in enumerate(parts) if part.tokens == ("\\cdots",))
    nodes = [_node(part) for part in (*parts[:at], *parts[at + 1 :])]
    numbers = [number for node in nodes if node is not None and (number := values.exact(node)) is not None]
    if at < 2 or len(numbers) < len(nodes):
        return None
    before, after = numbers[:at], numbers[at:]
    step = before[1] - before[0]
    steps = [b - a for run in (before, after) for a, b in itertools.pairwise(run)]
    if not step or any(one != step for one in steps) or (after and (after[0] - before[0]) / step % 1):
        return None
    return before[0], step, after[-1] if after else None


# --- equations, inequalities, sets ------------------------------------------------------------------------------------


def _same_equations(one: Form, other: Form) -> bool | None:
    """By their right sides if the left ones are labels; else as curves."""
    if one.kind != other.kind:
        equation, form = (one, other) if one.kind == "equation" else (other, one)
        left, right = equation.parts
        if form.kind == "list" and _one_of_list(equation, form):
            return True
        if curves.is_label(left.tokens, right.tokens) or (equation is one and _is_constant(right)):
            return _same(right, form) if equation is one else _same(form, right)
        return False
    sides = [[part.tokens for part in form.parts] for form in (one, other)]
    if all(len(left) == 4 and curves.is_name(left) for left, _ in sides):  # `f(t) = t^2` is `f(x) = x^2`
        old, new = sides[1][0][2], sides[0][0][2]
        other = dataclasses.replace(other, parts=tuple(_renamed(part, old, new) for part in other.parts))
        sides[1] = [part.tokens for part in other.parts]
    if all(curves.is_label(*both) for both in sides) and not _differ_in_name(one, other):
        verdict = _same(one.parts[1], other.parts[1])
        if verdict is not False:
            return verdict
    return curves.same_equations(*sides)


def _renamed(form: Form, old: str, new: str) -> Form:
    return dataclasses.replace(
        form,
        tokens=tuple(new if token == old else token for token in form.tokens),
        parts=tuple(_renamed(part, old, new) for part in form.parts),
    )


def _is_constant(form: Form) -> bool:
    node = _node(form)
    return node is not None and not latex.variables(node)


def _differ_in_name(one: Form, other: Form) -> bool:
    """`x = 3` differs from `y = 3`, `f(2) = 3` from `f(3) = 3`; `f(x) = 2x` equals `y = 2x`, `AB = 5` `x = 5`."""
    names = [form.parts[0].tokens for form in (one, other)]
    kinds = [curves.kind_of_label(name) for name in names]
    return (
        names[0] != names[1]
        and kinds[0] == kinds[1] != ""
        and all(_is_constant(form.parts[1]) for form in (one, other))
    )


def _same_sets(one: Form, other: Form) -> bool | None:
    this, that = _reals(one), _reals(other)
    if this is not None and that is not None:
        return reals.same(this, that) and not _differ_in_variable(one, other)
    if {one.kind, other.kind} <= {"set", "relation"}:
        return curves.same_inequalities(one.tokens, other.tokens)
    if "text" in (one.kind, other.kind):
        return False
    # The elements may be no numbers, or not supported.
    return None if "relation" in (one.kind, other.kind) or any(map(_is_unread, (one, other))) else False


def _is_unread(form: Form) -> bool:
    return form.kind == "expression" and _node(form) is None and _is_for_algebra(form)


def _is_for_algebra(form: Form) -> bool:
    r"""Whether a computer algebra system may know one of its commands (`\int`), and it has no words."""
    commands = any(token[0] == "\\" and len(token) > 2 and token not in _COMMON for token in form.tokens)
    return commands and not tokens.has_words(form.tokens)


def _reals(form: Form) -> reals.Reals | None:
    if form.kind == "list":
        apart = {part.kind in ("set", "tuple") for part in form.parts}
        return reals.union([part.tokens for part in form.parts]) if len(apart) == 1 else None
    return reals.read(form.tokens)


def _differ_in_variable(one: Form, other: Form) -> bool:
    letters = [{token for token in form.tokens if tokens.is_letter(token)} for form in (one, other)]
    bare = all(reals.OPERATORS & set(form.tokens) and not {"\\{", "\\in"} & set(form.tokens) for form in (one, other))
    return bare and len(letters[0]) == len(letters[1]) == 1 and letters[0] != letters[1]


# The first row whose kind either answer has decides how the two compare.
_RULES: tuple[tuple[str, Callable[[Form, Form], bool | None]], ...] = (
    ("choice", _same_choices),
    ("equation", _same_equations),
    ("set", _same_sets),
    ("relation", _same_sets),
    ("list", _same_lists),
    ("sequence", _same_sequences),
    ("ratio", _same_ratios),
    ("residue", _same_residues),
    ("time", lambda one, other: one.kind == other.kind and words.same_time(one.text, other.text)),
    ("numeral", lambda one, other: one.kind == other.kind and one.text == other.text),
    ("tuple", _same_tuples),
    ("matrix", _same_tuples),
    ("text", _same_texts),
    ("expression", _same_expressions),
)
