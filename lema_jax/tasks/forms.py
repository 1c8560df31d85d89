r"""What an answer of mathematics is: an expression, a collection, a tuple, a matrix, a text; and when two are equal.

`read` turns the LaTeX of an answer into a `Form`, apart from all that is presentation (`\left`, `\text{ units}`, `$`,
`x =`); `same` compares two forms part by part. None means "cannot tell": then a computer algebra system may know.
"""

import dataclasses
import re
from collections.abc import Sequence

from lema_jax.tasks import answers, latex


@dataclasses.dataclass(frozen=True)
class Form:
    """An answer, taken apart. `kind` says what the parts are and how they compare."""

    kind: str  # expression, text, pair, numeral, equation, relation, any (order-free), tuple (ordered), matrix
    text: str  # as compared letter by letter: no presentation, no white space
    parts: tuple["Form", ...] = ()
    brackets: str = ""  # of a tuple or interval, such as "[)"


def same(one: Form, other: Form) -> bool | None:
    """Whether two answers are equal; None when neither equality nor difference can be told here.

    Numbers too large to be worked out are compared letter by letter: nobody else could tell either.
    """
    try:
        return _same(one, other)
    except latex.TooLarge:
        return False


def _same(one: Form, other: Form) -> bool | None:
    if one.kind == other.kind and one.text == other.text:
        return True
    if "text" in (one.kind, other.kind):
        return one.text.casefold() == other.text.casefold()
    if "relation" in (one.kind, other.kind):  # `x > 3` may be an interval, or another relation turned round
        return None if {one.kind, other.kind} <= {"relation", "tuple", "any"} else False
    if one.kind != other.kind:
        return None if {one.kind, other.kind} == {"expression", "equation"} and _unread(one, other) else False
    if one.kind == "any":
        return _same_collections(one.parts, other.parts)
    if one.kind in ("tuple", "matrix"):
        alike = one.brackets == other.brackets and len(one.parts) == len(other.parts)
        return _all([same(*pair) for pair in zip(one.parts, other.parts)]) if alike else False
    if one.kind == "pair":
        return answers.same_number(one.text, other.text)
    if one.kind == "numeral":
        return False
    return _same_equations(one, other) if one.kind == "equation" else _same_expressions(one.text, other.text)


def read(text: str) -> Form:
    """The form of an answer, given as LaTeX or plain text, without the words around it.

    What is too long or too deep to be an answer is compared letter by letter.
    """
    try:
        return _read(_tidy(text)) if len(text) <= _LONGEST else Form("text", text)
    except RecursionError:
        return Form("text", text)


_LONGEST = 1_000  # characters
_MOST_PARTS = 50  # of a collection

# --- presentation -----------------------------------------------------------------------------------------------------

_TEXT = "text|mbox|textbf|textrm|textit|texttt|textnormal|hbox"
_UNWRAPPED = r"mathbf|mathrm|mathit|mathcal|mathbb|boldsymbol|operatorname|ensuremath|boxed|fbox"
_REWRITES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"(?<=\d)\s*\{,\}\s*(?=\d{3})|(?<=\d),\s?\\!\s*(?=\d{3})", ","),
        (r"\\!\s*|\\[,;:>]|\\q?quad\b|(?<!\\)\\ |~", " "),
        (r"\\(?:left|right|[bB]ig+[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])\s?\.?(?<!\.\d)", ""),
        (r"\\[dtc]frac\b|\\[dtc]frac(?=\d)", r"\\frac"),
        (rf"\\(?:{_TEXT})\s*\{{([0-9A-Z]+)\}}(?=\s*_)", r"\1"),  # digits of a numeral
        (rf"\\(?:{_TEXT})\s*\{{\s*(?:,\s*)?(?:and|or)\s*\}}", ","),
        (rf"\\(?:{_TEXT})\s*\{{([^{{}}]*)\}}", r' "\1" '),
        (rf"\\(?:{_UNWRAPPED})\s*\{{([^{{}}]*)\}}", r"\1"),
        (r"\^\s*\{?\s*\\circ\s*\}?|°|\\degrees?\b", ""),
        (r"\\\$|\$|£|€|\\[()]|\\\[|\\\]", " "),
        (r"\\%|%", r"\\%"),
        (r"\\l?dots\b|…", r"\\cdots"),
        (r"\\leq(?:slant)?\b|≤|\\le\b", r"\\le "),
        (r"\\geq(?:slant)?\b|≥|\\ge\b", r"\\ge "),
        (r"\\langle\b", "("),
        (r"\\rangle\b", ")"),
        (r"∞", r"\\infty "),
        (r"π", r"\\pi "),
        (r"√", r"\\sqrt "),
        (r"∪", r"\\cup "),
        (r"−|–", "-"),
        (r"×|·", "*"),
        (r"(?<!\\);", ","),
        (r"^\s*\\approx\b|(?<=[\w)}])\s*\\approx.*", " "),
        (r"(\\[a-zA-Z]+)_(\w)", r"\1_{\2}"),
        (r"(?<![\d/.])(\d+) +(\d+)/(\d+)(?![\d/.])", r"\1\\frac{\2}{\3}"),
        (r"\s+", " "),
    )
]
_CHARACTERS_AROUND = " .,;:"
_TRAILING_UNIT = re.compile(r"^(-?(?:\d[\d,]*(?:\.\d+)?|\.\d+|\\frac\{\d+\}\{\d+\}))\s+[a-z][a-z ]+(?:\^\{?[23]\}?)?$")
_NAMED = re.compile(
    r"^(?:(?:[A-Z]{1,3}|[a-zA-Z])(?:_\{?\w+\}?)?(?:\([a-z,\s]+\))?|\([a-z](?:\s?,\s?[a-z])+\))\s*(?:=|\\in\b)(?!.*(?:=|\\in\b))"
)
_RELATION = re.compile(r"\\(?:le|ge|lt|gt|ne|neq|in|equiv|approx|sim|subset|cong|to|rightarrow)\b|[<>]")


def _tidy(text: str) -> str:
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    return text.strip(_CHARACTERS_AROUND) if not text.strip().startswith(".") else text.strip()


def _bare(text: str) -> str:
    """Without white space, but for that between a command and a letter, and without quotation marks."""
    text = re.sub(r'["\s]+', " ", text)
    return re.sub(r"(\\[a-zA-Z]+ (?=[a-zA-Z]))| ", lambda found: found[1] or "", text).rstrip(".")


# --- structure --------------------------------------------------------------------------------------------------------

_MATRIX = re.compile(r"\\begin\s*\{([bpBvV]?matrix|array)\}(?:\{[lcr|\s]*\})?(.*)\\end\s*\{\1\}", re.DOTALL)
_NUMERAL = re.compile(r"(-?[0-9A-Z.]+)_(?:\{\s*)?(\d{1,2})\s*\}?")
_TIME = re.compile(r"(\d{1,2}) ?: ?(\d{2})( ?: ?\d{2})? *(?:([ap])\.? ?m\b.*)?", re.IGNORECASE)
_QUOTED = re.compile(r'"([^"]*)"')
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
_CLOSING = {"(": ")]", "[": ")]"}


def _read(text: str) -> Form:
    quoted = _QUOTED.findall(text)
    if time := _TIME.fullmatch(text.replace('"', " ").strip()):
        clock = f"{time[1]}:{time[2]}{_bare(time[3] or '')}" + (f" {time[4].lower()}m" if time[4] else "")
        return Form("text" if time[3] else "pair", clock)
    outside = _QUOTED.sub(" ", text).strip(_CHARACTERS_AROUND)
    if quoted and not re.search(r"[\w\\]", outside):
        return _words(" ".join(quoted))
    if quoted:
        text = outside  # what is left out is a unit
    if unit := _TRAILING_UNIT.match(text):
        text = unit[1]
    return _read_mathematics(text)


def _words(text: str) -> Form:
    """A text in words; the letter of a choice, a number or a formula in it is read as such."""
    inner = text.strip(_CHARACTERS_AROUND)
    if label := re.fullmatch(r"\(?([A-Za-z])\)?", inner):
        return Form("text", label[1])
    if re.search(r"[a-zA-Z]{2,}", inner):
        return Form("text", _bare(inner))
    return _read_mathematics(inner)


def _read_mathematics(text: str) -> Form:
    text = text.strip(_CHARACTERS_AROUND) if not re.match(r"\s*\.\d", text) else text.strip()
    while text.startswith("{") and _end_of_group(text) == len(text):
        text = text[1:-1].strip()
    if matrix := _MATRIX.fullmatch(text):
        rows = [_split(row, "&") for row in _split(matrix[2], "\\\\") if row.strip()]
        return Form(
            "matrix", _bare(text), tuple(_read(cell) for row in rows for cell in row), str([len(row) for row in rows])
        )
    if named := _NAMED.match(text):
        text = text[named.end() :].strip()
    if len(parts := _split(text, "\\cup")) > 1:
        return _collection(text, parts)
    if (text.startswith("\\{") and text.endswith("\\}")) or (text.startswith("\\lbrace") and text.endswith("\\rbrace")):
        return _collection(text, _split(re.sub(r"^\\(?:\{|lbrace)|\\(?:\}|rbrace)$", "", text), ","))
    if text[:1] in _CLOSING and _end_of_group(text) == len(text) and len(parts := _split(text[1:-1], ",")) > 1:
        return Form("tuple", _bare(text), tuple(map(_read, parts)), text[0] + text[-1])
    text = _THOUSANDS.sub(lambda number: number.group().replace(",", ""), text) if text[:1] not in "([" else text
    if (
        len(parts := [part for comma in _split(text, ",") for part in re.split(r" (?:and|or) ", comma) if part.strip()])
        > 1
    ):
        return _collection(text, parts)
    if "\\pm" in text or "\\mp" in text:
        signs = (("\\pm", "+"), ("\\mp", "-")), (("\\pm", "-"), ("\\mp", "+"))
        return _collection(text, [text.replace(a, x).replace(b, y) for (a, x), (b, y) in signs])
    return _simple(text)


def _simple(text: str) -> Form:
    bare = _bare(text)
    if _RELATION.search(text):
        return Form("relation", bare)
    if numeral := _NUMERAL.fullmatch(bare):
        return Form("numeral", f"{numeral[1].lstrip('0') or '0'}_{numeral[2]}")
    if re.fullmatch(r"\d+:\d+", bare):
        return Form("pair", bare)
    if len(sides := bare.split("=")) == 2 and all(sides):
        return Form("equation", bare)
    if label := re.fullmatch(r"\(([A-Z])\)", bare):
        bare = label[1]
    if re.fullmatch(r"[A-Z]", bare) or re.search(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}", text):
        return Form("text", bare)
    return Form("expression", bare)


def _collection(text: str, parts: Sequence[str]) -> Form:
    """Order-free and without repetition; one inside another is opened, and one of a single part is that part."""
    if len(parts) > _MOST_PARTS:
        return Form("text", _bare(text))
    forms: list[Form] = []
    for form in map(_read, parts):
        for one in form.parts if form.kind == "any" else (form,):
            if not any(same(one, other) for other in forms):
                forms.append(one)
    return forms[0] if len(forms) == 1 else Form("any", _bare(text), tuple(forms))


def _end_of_group(text: str) -> int:
    """Where the bracket closes that `text` opens with; -1 when it does not."""
    depth = 0
    for bracket in re.finditer(r"\\.|[(){}\[\]]", text, re.DOTALL):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(bracket.group(), 0)
        if depth == 0 and len(bracket.group()) == 1:
            return bracket.end()
    return -1


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that stand outside all brackets."""
    parts, start, depth = [], 0, 0
    for token in re.finditer(r"\\(?:[a-zA-Z]+|.)|[(){}\[\],&]", text, re.DOTALL):
        found = token.group()
        if found == separator and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
        depth += {"(": 1, "{": 1, "[": 1, "\\{": 1, ")": -1, "}": -1, "]": -1, "\\}": -1}.get(found, 0)
    return [part.strip() for part in [*parts, text[start:]]]


# --- equality ---------------------------------------------------------------------------------------------------------


def _all(verdicts: list[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def _same_collections(these: Sequence[Form], those: Sequence[Form]) -> bool | None:
    """Each of these is one of those, and no two the same one."""
    if len(these) != len(those):
        return False
    left, unsure = list(those), False
    for one in these:
        verdicts = [same(one, other) for other in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _same_expressions(one: str, other: str) -> bool | None:
    these, those = latex.values(one), latex.values(other)
    if these is None or those is None:
        return None
    these, those = _at_all_points(these, those)
    percents = one.endswith("\\%"), other.endswith("\\%")
    return all(map(latex.equal, these, those)) or (
        percents == (True, False) and all(latex.equal(value, wanted * 100) for value, wanted in zip(these, those))
    )


def _same_equations(one: Form, other: Form) -> bool | None:
    """Equations are the same when their sides' differences are a constant multiple of each other."""
    these, those = (latex.values("{}-({})".format(*form.text.split("="))) for form in (one, other))
    if these is None or those is None:
        return None
    these, those = _at_all_points(these, those)
    if any(latex.equal(value, 0j) for value in (*these, *those)):
        return False
    ratios = [complex(a) / complex(b) for a, b in zip(these, those)]
    return all(latex.equal(ratio, ratios[0]) for ratio in ratios)


def _at_all_points(*values: tuple[latex.Value, ...]) -> list[tuple[latex.Value, ...]]:
    """A value without variables is the same at every point."""
    points = max(map(len, values))
    return [one * points if len(one) == 1 else one for one in values]


def _unread(*forms: Form) -> bool:
    return any(form.kind == "expression" and latex.values(form.text) is None for form in forms)
