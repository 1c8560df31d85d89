r"""The tokens of a mathematical answer: numbers, letters, signs, LaTeX commands, words.

`read` takes text in plain presentation (`presentation.plain`) and never fails: an unknown character is a token. White
space and currency signs are dropped; names typed without a backslash (`sqrt`, `pi`, `inf`) become commands; each word,
inside `\text{…}` or not, is one token with the prefix `WORD`.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

WORD = '"'
LONGEST = 1_000  # characters of an answer


def names(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())


_FUNCTIONS = names("sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan arcsinh arccosh arctanh log ln lg exp")
_FUNCTIONS |= names("cis gcd lcm max min det")
FUNCTIONS = frozenset(f"\\{name}" for name in _FUNCTIONS)
OPENING = {"(": ")", "[": "]", "{": "}", "\\{": "\\}", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_CLOSING = frozenset(OPENING.values())

# Names that people type without a backslash.
_COMMANDS = names("sqrt frac binom pi theta infty pm cdot emptyset times abs floor ceil choose mod") | _FUNCTIONS
_NAMES = {name: f"\\{name}" for name in _COMMANDS} | {"inf": "\\infty", "oo": "\\infty", "infinity": "\\infty"}
_NAMES |= {"asin": "\\arcsin", "acos": "\\arccos", "atan": "\\arctan", "union": "\\cup"}
_NO_NAMES_IN_TEXT = names("max min mod union floor times oo pi")
_FUNCTION_OF_A_LETTER = re.compile(
    r"(?P<function>arcsin|arccos|arctan|sin|cos|tan|cot|sec|csc|log|ln)[a-zA-Z]|[a-zA-Z]sqrt"
)
# Names that are units only after a quantity; elsewhere they may be products of variables.
_UNITS = names("mm cm dm km mi yd ft kg kgs mg gm lb lbs oz ml mL hr hrs yr yrs ms am pm th st nd rd min sec in")
_SMALL_WORDS = {word: word for word in ("and", "or", "no", "is", "of", "if", "to")} | {"and/or": "or"}
_ALIASES = {
    "\\cdot": "*", "\\times": "*", "\\ast": "*", "\\div": "/", "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lvert": "|",
    "\\rvert": "|", "\\vert": "|", "\\mid": "|", "\\lbrack": "[", "\\rbrack": "]", "\\langle": "(", "\\rangle": ")",
    "\\varphi": "\\phi", "\\varepsilon": "\\epsilon", "\\vartheta": "\\theta", "\\lt": "<", "\\gt": ">",
    "\\leq": "\\le", "\\geq": "\\ge", "<=": "\\le", ">=": "\\ge", "!=": "\\ne", "==": "=", "\\neq": "\\ne",
    "\\land": '"and', "\\wedge": '"and', "\\lor": '"or', "\\vee": '"or', "**": "^", "\\backslash": "\\setminus",
    "\\bmod": "\\mod", "\\%": "%", "\\colon": ":", "\\implies": "\\to", "\\Rightarrow": "\\to",
    "\\rightarrow": "\\to", "\\tg": "\\tan", "\\simeq": "\\approx", "\\dots": "\\cdots", "\\ldots": "\\cdots",
    "...": "\\cdots", "\\|": "||", "\\arsinh": "\\arcsinh", "\\arcosh": "\\arccosh", "\\artanh": "\\arctanh",
    "\\asin": "\\arcsin", "\\acos": "\\arccos", "\\atan": "\\arctan", "\\tfrac": "\\frac", "\\dfrac": "\\frac",
}  # fmt: skip

_NOTHING = r"\s+|\\[,;:!>\s$]|[~$€£¥₹¢]|\\(?:qquad|quad|left|right|middle|boxed)(?![a-zA-Z])|\\[()\[\]]"
_DECIMAL = r"\d+(?:\.\d+)?|\.\d+"
_TOKEN = re.compile(
    rf"""(?P<nothing>{_NOTHING})
    |\\text\s*\{{(?P<text>[^{{}}]*)\}}
    |(?P<row>\\\\(?:\s*\[-?[\d.]+\s*[a-z]{{2}}\])?)
    |(?P<environment>\\(?:begin|end)\s*\{{[a-zA-Z]+\*?\}}(?:\s*\{{[lcr|@\s]*\}})?)
    |\\(?:mathbb|Bbb|mathds)\s*\{{?\s*(?P<field>[A-Z])\s*\}}?
    |\\(?:hat|vec|widehat)\s*\{{?\s*\\?(?P<axis>[ijk])(?:math)?(?![a-zA-Z])\s*\}}?
    |\\(?:bar|overline|tilde)\s*\{{\s*(?P<barred>[a-zA-Z])\s*\}}|\\vec\s*\{{\s*(?P<vector>[a-zA-Z])\s*\}}
    |\\overline\s*\{{\s*(?P<segment>[A-Z]{{2}})\s*\}}
    |(?P<degrees>\^\s*(?:\\circ(?![a-zA-Z])|\{{\s*\\circ\s*\}}))
    |(?<![\w\}}\])])(?:\{{\s*\}})?[_^]\s*\{{?(?P<n>\w+)\}}?\s*(?P<choice>[CP])\s*_\s*\{{?(?P<k>\w+)\}}?
    |(?<![\w.])(?P<n_>\d+)\s?(?P<choice_>[CP])\s?(?P<k_>\d+)(?!\w*_)
    |(?P<command>\\(?:[a-zA-Z]+|.))
    |(?P<repeating>\d*\.\d*(?:\\(?:overline|bar|dot)\s*\{{?\d+\}}?(?:\d*\\dot\s*\{{?\d\}}?)?|\(\d+\)))
    |(?P<unending>\d*\.\d+)\s?(?:\\cdots|\.\.\.)
    |(?P<thousands>(?<![\d.,])(?:[1-9]\d{{0,2}}(?P<apart>,|\{{,\}}|,\\!\s*|\\,|\\!|\ |')\d{{3}}(?:(?P=apart)\d{{3}})*
      |[1-9]\d?(?:,\d{{2}})+,\d{{3}})(?!\d|,\d)(?:\.\d+)?)
    |(?P<number>(?:\d+\.\d+[eE]-?\d+|\d+[eE]\d+)(?![\w_])|{_DECIMAL})
    |(?P<letters>and/or|[^\W\d_]+)
    |(?P<sign>\.\.\.|<=|>=|!=|==|\*\*|!!|.)""",
    re.VERBOSE | re.DOTALL,
)


def read(text: str) -> tuple[str, ...]:
    """The tokens of a text in plain presentation."""
    return tuple(_with_marks(list(_lex(text, in_text=False))))


def _lex(text: str, *, in_text: bool) -> Iterator[str]:
    depth, last, apart = 0, "", False  # open brackets, the last token, whether white space follows it
    for match in _TOKEN.finditer(text):
        kind, found = match.lastgroup or "", match.group()
        if kind == "nothing":
            apart = True
            continue
        depth += {"(": 1, "[": 1, "\\{": 1, ")": -1, "]": -1, "\\}": -1}.get(found, 0)
        if kind == "letters":
            tokens = list(_letters(found, last, apart, in_text))
        else:
            tokens = list(_others(kind, match, bracketed=depth > 0))
        yield from tokens
        last, apart = tokens[-1] if tokens else last, False


def _others(kind: str, match: re.Match[str], *, bracketed: bool) -> Iterator[str]:
    found = match.group()
    if kind == "text":
        yield from _lex(match["text"], in_text=match["text"] not in ("i", "e"))
    elif kind == "row":
        yield "\\\\"
    elif kind == "environment":
        yield re.sub(r"(?<=\})\s*\{.*|[*\s]", "", found)
    elif kind == "field":
        yield f"\\mathbb{{{match['field']}}}"
    elif kind == "axis":
        yield f"\\hat{{{match['axis']}}}"
    elif kind == "barred":
        yield f"\\bar{{{match['barred']}}}"
    elif kind in ("vector", "segment"):
        yield from match[kind]
    elif kind == "degrees":
        yield "\\degree"
    elif kind in ("k", "k_"):
        n, choice, k = (match["n"], match["choice"], match["k"]) if kind == "k" else match.group("n_", "choice_", "k_")
        yield from ("\\binom" if choice == "C" else "\\permutations", "{", *_lex(n, in_text=False), "}")
        yield from ("{", *_lex(k, in_text=False), "}")
    elif kind == "repeating":
        start, *digits = re.findall(r"\d*\.\d*|\d+", found)
        yield f"{start}({''.join(digits)})"
    elif kind == "unending":
        period = re.fullmatch(r"(\d*\.\d*?)(?:(\d)\2{2,}|(\d{2,6}?)\3+)", match["unending"])
        yield from [f"{period[1]}({period[2] or period[3]})"] if period else [match["unending"], "\\cdots"]
    elif kind in ("thousands", "apart"):
        # A comma in brackets separates coordinates.
        listed = bracketed and match["apart"] in (",", None)
        yield from re.findall(r"[\d.]+|,", found) if listed else [re.sub(r"[^\d.]", "", found)]
    else:
        yield _ALIASES.get(found, found)


def _letters(run: str, last: str, apart: bool, in_text: bool) -> Iterator[str]:
    """A run of letters: a name, a word, a unit, or variables side by side."""
    quantity = last[-1:].isdigit() or last in (")", "}", "\\pi")
    if run.lower() in _SMALL_WORDS:
        yield WORD + _SMALL_WORDS[run.lower()]
    elif run in _UNITS and quantity and (not in_text or run != "in"):
        yield WORD + run
    elif run in _NAMES and not (in_text and run in _NO_NAMES_IN_TEXT):
        yield _NAMES[run]
    elif in_text or (len(run) > 2 and not _is_product(run, last, apart)) or not run.isascii():
        both = None if in_text else _FUNCTION_OF_A_LETTER.fullmatch(run)
        if both is None:
            yield WORD + run
        else:
            yield from ["\\" + both["function"], run[-1]] if both["function"] else [run[0], "\\sqrt"]
    else:
        yield from run


def _is_product(run: str, last: str, apart: bool) -> bool:
    """Whether letters are variables rather than a word: few, lower case, in alphabetical order (`abc`) or consonants
    after a number (`3zyx`)."""
    ordered = all(a < b for a, b in itertools.pairwise(run))
    return (
        len(run) <= 4 and run.islower() and (ordered or (last.isdigit() and not apart and not set(run) & set("aeiou")))
    )


def _with_marks(tokens: list[str]) -> Iterator[str]:
    """Joins subscripts and primes to the name of a variable; on digits and functions they stay tokens."""
    at = 0
    while at < len(tokens):
        name = tokens[at]
        at += 1
        if name == "x" and tokens[at : at + 2] == ["10", "^"] and at > 1 and tokens[at - 2][-1:].isdigit():
            name = "*"  # `6.5 x 10^3`
        if is_letter(name):
            while at < len(tokens) and tokens[at] in ("'", "_"):
                if tokens[at] == "'":
                    name, at = name + "'", at + 1
                    continue
                end = end_of_group(tokens, at + 1) if tokens[at + 1 : at + 2] == ["{"] else at + 2
                name, at = f"{name}_{''.join(t.lstrip(WORD) for t in tokens[at + 1 : end] if t not in '{}')}", end
        yield name


_MARKED = ("\\hat{", "\\bar{")
_GREEK = frozenset(
    f"\\{name}"
    for name in names(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi"
    )
    | names("omega Gamma Delta Theta Lambda Sigma Phi Psi Omega ell")
)


def is_letter(token: str) -> bool:
    """Whether a token is the name of a variable: a letter, Latin or Greek, with its marks."""
    letter = token.partition("_")[0].rstrip("'")
    return (len(letter) == 1 and letter.isalpha() and letter.isascii()) or letter in _GREEK or letter[:5] in _MARKED


def is_word(token: str) -> bool:
    """Whether a token is a word."""
    return token[0] == WORD


def has_words(expression: Sequence[str]) -> bool:
    """Whether any of the tokens is a word."""
    return any(token[0] == WORD for token in expression)


def end_of_group(tokens: Sequence[str], start: int) -> int:
    """The index after the bracket that closes the one at `start` (`(0, 1]` counts); the end if none does."""
    depth = 0
    for at in range(start, len(tokens)):
        depth += (tokens[at] in OPENING) - (tokens[at] in _CLOSING)
        if depth <= 0:
            return at + 1
    return len(tokens)


def depth(tokens: Sequence[str]) -> int:
    """The deepest nesting of brackets."""
    deepest = now = 0
    for token in tokens:
        now += (token in OPENING) - (token in _CLOSING)
        deepest = max(deepest, now)
    return deepest


def split(tokens: Sequence[str], *separators: str) -> list[Sequence[str]]:
    """The parts between separators outside all brackets and environments."""
    if not any(separator in tokens for separator in separators):
        return [tokens]
    parts, start, depth = [], 0, 0
    for at, token in enumerate(tokens):
        if depth == 0 and token in separators:
            parts.append(tokens[start:at])
            start = at + 1
        depth += (token in OPENING or token.startswith("\\begin")) - (token in _CLOSING or token.startswith("\\end"))
    return [*parts, tokens[start:]]


def within(tokens: Sequence[str], opening: str, closing: str) -> bool:
    """Whether the first bracket, one of `opening`, is closed by the last token, one of `closing`."""
    return (
        len(tokens) > 1
        and tokens[0] in opening.split()
        and tokens[-1] in closing.split()
        and end_of_group(tokens, 0) == len(tokens)
    )
