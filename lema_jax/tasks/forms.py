r"""The form of a mathematical answer: an expression, a list, a tuple, a matrix, an equation, a set, a text."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Sequence

from lema_jax.tasks import curves, latex, matrices, reals, tokens, units, words


@dataclasses.dataclass(frozen=True)
class Form:
    """A parsed answer. `kind` says what the parts are and how they compare."""

    kind: str  # choice, equation, expression, list, matrix, numeral, ratio, relation, residue, sequence, set, …
    tokens: tuple[str, ...]
    parts: tuple["Form", ...] = ()
    text: str = ""  # of a text, time, choice or numeral; the brackets of a tuple; the row lengths of a matrix
    unit: units.Unit | None = None


# --- reading ----------------------------------------------------------------------------------------------------------

_MOST_PARTS = 50  # of a list
_DEEPEST = 40  # nested brackets
_MOST_SIGNS = 3  # ± in one answer
_AROUND = frozenset((".", ",", ";", ":", "?", "\\sim", "\\approx"))


@functools.lru_cache(maxsize=1_024)
def read(text: str) -> Form:
    """The form of an answer. Text that is too long or too deeply nested is compared verbatim."""
    if len(text) <= tokens.LONGEST and tokens.depth(expression := tokens.read(text)) <= _DEEPEST:
        return _read(expression)
    return Form("text", (text,), text=text)


def _read(expression: Sequence[str]) -> Form:
    start, end = 0, len(expression)
    while start < end and expression[start] in _AROUND:
        start += 1
    while start < end and expression[end - 1] in _AROUND:
        end -= 1
    if end - start > 1 and expression[start].lower() in ('"either', '"both'):
        start += 1
    expression = tuple(expression[start:end])
    if not expression:
        return Form("text", ())
    if tokens.within(expression, "{", "}") and len(expression) > 2:
        return _read(expression[1:-1])
    return next(filter(None, (reader(expression) for reader in _READERS)), None) or Form("expression", expression)


def _choice(expression: tuple[str, ...]) -> Form | None:
    if (found := words.choice(expression)) is None:
        return None
    return Form("choice", expression, (_read(found[1]),) if found[1] else (), found[0])


def _time(expression: tuple[str, ...]) -> Form | None:
    if ":" not in expression and not tokens.has_words(expression):
        return None
    return Form("time", expression, text=found) if (found := words.time(expression)) else None


def _words(expression: tuple[str, ...]) -> Form | None:
    if not tokens.has_words(expression):
        return None
    if (number := words.number(expression)) is not None:
        return Form("expression", number)
    if expression[0].lstrip(tokens.WORD).lower() in units.BEFORE:
        return None
    if words.is_date(expression) or (words.is_text(expression) and len(_items(expression)) == 1):
        inner = expression[1:] if expression[0] == '"' else expression
        return None if reals.read(inner) is not None else Form("text", expression, text=words.plain(expression))
    return None


def _remainder(expression: tuple[str, ...]) -> Form | None:
    """`5 R 2`, `5 remainder 2`."""
    if (
        len(expression) != 3
        or expression[1].lower() not in ("r", '"r', '"remainder')
        or not (expression[0] + expression[2]).isdigit()
    ):
        return None
    return Form("text", expression, text=f"{int(expression[0])} remainder {int(expression[2])}")


def _matrix(expression: tuple[str, ...]) -> Form | None:
    if (written := matrices.determinant(expression)) is not None:
        return Form("expression", written)
    if (rows := matrices.read(expression)) is not None:
        cells = tuple(_read(cell) for row in rows for cell in row)
        return Form("matrix", expression, cells, " ".join(str(len(row)) for row in rows))
    if expression[0] == "\\begin{cases}" and expression[-1] == "\\end{cases}":
        rows = matrices.rows_of(expression[1:-1])
        if all(len(row) == 1 for row in rows):
            return _list(expression, [row[0] for row in rows])
        return Form("list", expression, tuple(Form("tuple", (), tuple(map(_read, row))) for row in rows))
    return None


def _quantity(expression: tuple[str, ...]) -> Form | None:
    if not tokens.has_words(expression):
        return None
    if (total := units.scaled(tuple(token for token in expression if token not in (",", '"and')))) is not None:
        return _read(total)
    if compound := units.compound(expression):
        return dataclasses.replace(_read(compound[0]), unit=compound[1])
    if len(_items(expression)) > 1 or (found := units.read(expression)) is None or not found[0]:
        return None
    form = _read(found[0])
    return dataclasses.replace(form, unit=found[1] or form.unit)


def _set(expression: tuple[str, ...]) -> Form | None:
    signs = reals.SIGNS.intersection(expression)
    if not signs and not tokens.has_words(expression) and expression[0] != "]" and expression[-1] != "[":
        return None
    if reals.read(expression) is not None:
        return Form("set", expression)
    if "\\in" in expression and len(parts := tokens.split(expression, "\\in")) == 2:
        return (
            _read(parts[1])
            if parts[0] and all(token in "(),{}" or tokens.is_letter(token) for token in parts[0])
            else None
        )
    return Form("relation", expression) if signs & reals.OPERATORS and len(_items(expression)) == 1 else None


def _items(expression: tuple[str, ...]) -> list[Sequence[str]]:
    return [part for part in tokens.split(expression, ",", ";", '"and', '"or', "&", "\\&") if part]


def _several(expression: tuple[str, ...]) -> Form | None:
    """A list; `x = 1, y = 2; x = 3, y = 4` is a list of lists."""
    parts = _items(expression)
    if len(parts) < 2:
        return None
    for separator in (";", '"or'):
        groups = [part for part in tokens.split(expression, separator) if part]
        if len(groups) > 1 and all("," in part and "=" in part for part in groups):
            return Form("list", expression, tuple(map(_read, groups)))
    if ("\\cdots",) in map(tuple, parts):
        return Form("sequence", expression, tuple(map(_read, parts)))
    return _list(expression, parts)


def _braces(expression: tuple[str, ...]) -> Form | None:
    if not tokens.within(expression, "\\{", "\\}"):
        parts = tokens.split(expression, "\\cup")
        return _list(expression, parts) if len(parts) > 1 and all(parts) else None
    inner = expression[1:-1]
    if not inner:
        return Form("set", expression)
    form = _several(inner) or _list(expression, _items(inner))
    return dataclasses.replace(form, tokens=expression) if form.kind == "list" else form


def _list(expression: tuple[str, ...], parts: Sequence[Sequence[str]]) -> Form:
    """An unordered list; flattens nested lists, and unwraps a single part."""
    if len(parts) > _MOST_PARTS:
        return Form("text", expression, text=" ".join(expression))
    forms = [one for form in map(_read, parts) for one in (form.parts if form.kind == "list" else (form,))]
    return forms[0] if len(forms) == 1 else Form("list", expression, tuple(forms))


def _signs(expression: tuple[str, ...]) -> Form | None:
    r"""`\pm 1 \pm \sqrt{2}` is four numbers; with a `\mp` the signs are coupled."""
    count = expression.count("\\pm") + expression.count("\\mp")
    if not count or count > _MOST_SIGNS:
        return None
    together = "\\mp" in expression
    variants = []
    for signs in itertools.product("+-", repeat=1 if together else count):
        chosen = itertools.cycle(signs) if together else iter(signs)
        opposite = {"+": "-", "-": "+"}
        variants.append(
            tuple(
                next(chosen) if token == "\\pm" else opposite[next(chosen)] if token == "\\mp" else token
                for token in expression
            )
        )
    return _list(expression, variants)


def _equation(expression: tuple[str, ...]) -> Form | None:
    r"""`left = right`, or the ends of a chain; an approximation is dropped (`\sqrt{2} \approx 1.41` is `\sqrt{2}`)."""
    exact, *approximations = tokens.split(expression, "\\approx")
    if approximations and not curves.is_name(exact):
        return _read(exact)
    sides = [side for side in tokens.split(expression, "=", "\\approx", "\\to") if side]
    if len(sides) < 2:
        return None
    left, right = sides[0], sides[-1]
    if curves.is_name(right) and not curves.is_name(left):
        left, right = right, left
    return Form("equation", expression, (Form("expression", tuple(left)), _read(right)))


def _residue(expression: tuple[str, ...]) -> Form | None:
    r"""`3 \pmod 7`, `x \equiv 3 \pmod{7}`."""
    if "\\pmod" not in expression and "\\equiv" not in expression:
        return None
    expression = tuple("\\pmod" if token == "\\mod" and "\\equiv" in expression else token for token in expression)
    value, *modulus = tokens.split(
        tuple(t for t in expression if t not in "()" or "\\pmod" not in expression), "\\pmod"
    )
    if len(modulus) != 1 or not modulus[0] or not value:
        return None
    return Form("residue", expression, (_read(tokens.split(value, "\\equiv")[-1]), _read(modulus[0])))


def _numeral(expression: tuple[str, ...]) -> Form | None:
    if '"base' not in expression and not any("_" in token for token in expression):
        return None
    found = _NUMERAL.fullmatch("".join(expression).replace('"base', "_").replace("__", "_").replace("_{_", "_{"))
    if found is None:
        return None
    base = int(found["base"]) if found["base"].isdigit() else int((words.number((found["base"],)) or ("0",))[0])
    digits = found["digits"].replace('"', "").upper().lstrip("0") or "0"
    if not 2 <= base <= 36 or not all(char == "." or int(char, 36) < base for char in digits):
        return None
    if base == 10:
        return Form("expression", (*found["sign"], digits))
    return Form("numeral", expression, text=f"{found['sign']}{digits}_{base}")


_NUMERAL = re.compile(
    r'(?P<sign>-?)\(?(?P<digits>["0-9A-Z.]*(?:\d|["A-Z]{2})["0-9A-Z.]*)\)?_\{?\(?"?(?P<base>\d\d?|[a-z]+)\)?\}?'
)


def _ratio(expression: tuple[str, ...]) -> Form | None:
    parts = tokens.split(expression, ":", '"to')
    return Form("ratio", expression, tuple(map(_read, parts))) if len(parts) > 1 and all(parts) else None


def _tuple(expression: tuple[str, ...]) -> Form | None:
    if expression[-2:] == ("^", "T"):  # a column
        expression = expression[:-2]
    if not tokens.within(expression, "( [", ") ]"):
        return None
    inner = expression[1:-1]
    parts = tokens.split(inner, ";")
    parts = parts if len(parts) > 1 else tokens.split(inner, ",")
    if len(parts) < 2:
        simple = expression[0] == "(" and expression[-1] == ")" and inner
        return _read(inner) if simple and latex.read(inner) is None else None
    return Form("tuple", expression, tuple(map(_read, parts)), expression[0] + expression[-1])


_READERS: tuple[Callable[[tuple[str, ...]], Form | None], ...] = (
    _choice, _time, _remainder, _words, _matrix, _set, _quantity, _residue, _several, _equation, _braces, _signs,
    _numeral, _ratio, _tuple,
)  # fmt: skip
