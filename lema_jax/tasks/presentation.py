r"""Normalises the presentation of a text (Unicode, Markdown, HTML, LaTeX layout) once, before anything parses it.

`document` is for reasoning paths, `plain` for answers, golds and other short texts; the same for every task, models'
texts and golds. Afterwards each sign has one form: minus is `-`, times `\times`, a superscript `^{2}`, a
vulgar fraction `\frac{1}{2}`, words within mathematics `\text{…}`, a displayed formula `\[…\]` on one line. Markdown,
HTML and LaTeX layout are gone. Linear in the length of the text.
"""

import html
import re
import unicodedata


def document(text: str) -> str:
    """Normalises a reasoning path: `plain`, without special tokens, headings, code fences and HTML.

    Keeps the last 20,000 characters.
    """
    text = characters(text[-_LONGEST:])[-_LONGEST:]
    if "<" in text:
        text = _LINE_TAG.sub("\n", _SPECIAL_TOKEN.sub("\n", text))
        text = _TAG.sub("", text)
    if "`" in text or "~" in text:
        text = _FENCE.sub("", text)
    if "#" in text:
        text = _HEADING.sub("", text)
    return plain(text)


def plain(text: str) -> str:
    """Normalises a short text: one form for each sign, no Markdown emphasis, no LaTeX layout."""
    if _ORDINARY.fullmatch(text):
        return text
    text = _emphasis(text)
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found.group()), text)
    text = characters(text)
    if "!=" in text:
        text = _UNEQUAL.sub("\\\\ne ", text)
    bare = "{" in text and _BARE_COMMAND.search(text)
    return _latex(text) if "\\" in text or "$$" in text or "{,}" in text or bare or _CONTROL.search(text) else text


# Without any sign that is looked at here: a short text is seldom more.
_ORDINARY = re.compile(r"(?:[^*_~`&!\\${\x00-\x09\x0b-\x1f\x7f-\U0010ffff]|\$(?!\$)|!(?!=))*+")

# --- documents --------------------------------------------------------------------------------------------------------

_LONGEST = 20_000  # characters
_SPECIAL_TOKEN = re.compile(r"<\|[a-zA-Z_]{1,40}\|>|</?s>|<end_of_turn>|<eos>")
_LINE_TAG = re.compile(r"</?(?:br|p|div|li|h[1-6])\b[^<>]{0,200}>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:a|b|big|center|code|em|font|i|mark|small|span|strong|tt|u)\b[^<>]{0,200}>", re.IGNORECASE)
# Four signs of number are GSM8K's cue of an answer, and stay.
_HEADING = re.compile(r"^[^\S\n]{0,3}(?:#{1,3}|#{5,6})[^\S\n]+(?=\S)", re.MULTILINE)
_FENCE = re.compile(r"^[^\S\n]{0,3}(?:```|~~~)[^\n`]{0,40}$", re.MULTILINE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[a-zA-Z]{2,20});")

# Emphasis: in pairs, then whatever marks are left that stand between no two operands (`2 * 3`, `x**2`).
_PAIRED = [
    re.compile(r"(?<![\w)\]}*\\])(\*{1,3})(?=[^\s*])([^*\n]*[^\s*])\1(?![\w(*])"),
    re.compile(r"(?<![^\s(*\"'])(_{1,2})(?=[^\s_])([^_\n]*[^\s_])\1(?![^\s.,;:!?)*\"'])"),
]
_PRODUCT = re.compile(r"(?<=[\w)\]}]) \* (?=[\w(\\.$-])")  # no mark of emphasis
_LEFT_OVER = re.compile(r"(?P<before>[\w)\]}]?)(?P<gap>[^\S\n]{0,9})\*+(?P<behind>[^\S\n]*)(?=(?P<after>[\w(\\.$-]?))")
_UNEQUAL = re.compile(r"(?<=[a-zA-Z\s}])!=")  # but 5!=120
_STRUCK = re.compile(r"~~[^~\n]+~~")


def _emphasis(text: str) -> str:
    if "*" in text and text.count("*") != len(_PRODUCT.findall(text)):
        changed = 2  # `**Answer: *5***`
        while changed:
            text, found = _PAIRED[0].subn(r"\2", text)
            changed = found and changed - 1
        text = _LEFT_OVER.sub(_operator_or_nothing, text)
    if "_" in text:
        text = _PAIRED[1].sub(r"\2", text)
    if "~~" in text:
        text = _STRUCK.sub("", text)
    return text.replace("`", "") if "`" in text else text


def _operator_or_nothing(mark: re.Match[str]) -> str:
    """A product stays: it has an operand on either side, and as much white space to the left as to the right."""
    even = bool(mark["gap"]) == bool(mark["behind"])
    numbers = (mark["before"].isdigit() or mark["before"] == ")") and (mark["after"].isdigit() or mark["after"] == "(")
    if mark["before"] and mark["after"] and (even or numbers):
        return mark.group()
    return mark["before"] + mark["gap"] + mark["behind"]


# --- characters -------------------------------------------------------------------------------------------------------

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni"))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₕₖₗₘₙₚₛₜ", "0123456789+-=()aeoxhklmnpst"))
_RAISED = re.compile("[{}]+".format("".join(map(re.escape, _SUPERSCRIPTS))))
_LOWERED = re.compile("[{}]+".format("".join(map(re.escape, _SUBSCRIPTS))))
_BUILT_FRACTION = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]{1,9})[⁄/]([₀₁₂₃₄₅₆₇₈₉]{1,9})")
_ROOT = re.compile(r"√\s*(?:(\d+(?:\.\d+)?|\w)|(?=[({\\]))")
_SIGNS = {
    **dict.fromkeys("−‐‑‒–﹣－➖", "-"),
    **dict.fromkeys("‘’‛′ʹ＇`´", "'"),
    **dict.fromkeys("“”„‟″「」『』«»", '"'),
    **dict.fromkeys("×✕✖⨯", "\\times "),
    **dict.fromkeys("·⋅∙•・", "\\cdot "),
    **dict.fromkeys("÷➗∕⁄", "/"),
    **dict.fromkeys("∗⁎", "*"),
    **dict.fromkeys("≤⩽≦", "\\le "),
    **dict.fromkeys("≥⩾≧", "\\ge "),
    **dict.fromkeys("→⟶⇒➡⟹➔➜", "\\to "),
    **dict.fromkeys("∅⌀∅", "\\emptyset "),
    **dict.fromkeys("°˚º", "^\\circ "),
    **dict.fromkeys("。｡", ". "),
    **dict.fromkeys("、", ", "),
    **dict.fromkeys("【〔", "["),
    **dict.fromkeys("】〕", "]"),
    "≠": "\\ne ",
    "≈": "\\approx ",
    "≡": "\\equiv ",
    "∞": "\\infty ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∈": "\\in ",
    "∉": "\\notin ",
    "∖": "\\setminus ",
    "∠": "\\angle ",
    "∑": "\\sum ",
    "∫": "\\int ",
    "⌊": "\\lfloor ",
    "⌋": "\\rfloor ",
    "⌈": "\\lceil ",
    "⌉": "\\rceil ",
    "⟨": "\\langle ",
    "⟩": "\\rangle ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℚ": "\\mathbb{Q}",
    "ℕ": "\\mathbb{N}",
    "ℂ": "\\mathbb{C}",
    "ℓ": "l",
    "\N{MICRO SIGN}": "\\mu ",
    "ϕ": "\\phi ",
    "\t": " ",
    "\N{NO-BREAK SPACE}": " ",
    "\N{IDEOGRAPHIC SPACE}": " ",
    "\N{LINE SEPARATOR}": "\n",
    "\N{PARAGRAPH SEPARATOR}": "\n\n",
}
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi . pi rho . sigma tau upsilon phi chi psi"
    " omega"
)


_LETTERS = {chr(ord("α") + at): f"\\{name} " for at, name in enumerate(_GREEK.split()) if name != "."}
_GREEK_WORD = re.compile("[\u0370-\u03ff\u1f00-\u1fff]+")


def _greek(found: re.Match[str]) -> str:
    """Commands of one or two Greek letters, which are variables; more are a word."""
    letters = found.group()
    if len(letters) > 2 or not all(map(_LETTERS.__contains__, letters)):
        return letters
    return "".join(map(_LETTERS.__getitem__, letters))


def _sign(char: str) -> str:
    """What one character that is not ASCII becomes."""
    if char in _SIGNS:
        return _SIGNS[char]
    if unicodedata.category(char) in ("Cf", "Me") or "\u0300" <= char <= "\u036f" or "\ufe00" <= char <= "\ufe0f":
        return ""  # nothing is seen of it, or it is a line or a frame around another
    if (digit := unicodedata.digit(char, None)) is not None:
        return str(digit)
    kind, *codes = unicodedata.decomposition(char).split() or [""]
    parts = "".join(chr(int(code, 16)) for code in codes)
    if kind == "<fraction>":
        top, _, bottom = parts.partition("⁄")
        return f"\\frac{{{top}}}{{{bottom}}}" if bottom else f"{top}/"
    if kind.startswith("<") and parts:
        return characters(parts)
    return char


class _Signs(dict[int, str]):
    """Fills itself as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = chr(code) if code < 128 else _sign(chr(code))
        return self[code]


_TABLE = _Signs({ord("\t"): " "})


def characters(text: str) -> str:
    """Unicode's many forms of a sign as one; a superscript becomes `^{…}`, for `x²` is not `x2`."""
    if text.isascii():
        return text
    text = unicodedata.normalize("NFC", text)
    text = _BUILT_FRACTION.sub(
        lambda found: "\\frac{{{}}}{{{}}}".format(*(unicodedata.normalize("NFKC", part) for part in found.groups())),
        text,
    )
    text = _RAISED.sub(lambda found: "^{" + "".join(map(_SUPERSCRIPTS.__getitem__, found.group())) + "}", text)
    text = _LOWERED.sub(lambda found: "_{" + "".join(map(_SUBSCRIPTS.__getitem__, found.group())) + "}", text)
    text = _GREEK_WORD.sub(_greek, text)
    text = _ROOT.sub(lambda found: f"\\sqrt{{{found[1]}}}" if found[1] else "\\sqrt ", text)
    return text.translate(_TABLE)


# --- LaTeX ------------------------------------------------------------------------------------------------------------

# What JSON, or Python, makes of a backslash that was not doubled.
_ESCAPED = str.maketrans({"\b": "\\b", "\f": "\\f", "\a": "\\a", "\v": "\\v"})
_TWICE = re.compile(
    r"(?<!\\)\\\\(?=(?:f?boxed|[dt]?frac|sqrt|text|times|cdot|left|right|begin|pi|infty|theta|mathbb|circ|leq?|geq?|neq?|cup|cap|pm)"
    r"(?![a-zA-Z]))"
)
_CONTROL = re.compile(r"[\b\f\v\a]")
_BARE_COMMAND = re.compile(r"(?<![\\a-zA-Z])(?:d?frac|sqrt|boxed)\{")
_UNESCAPED = re.compile(r"(?<![\\a-zA-Z])(d?frac|sqrt|boxed)(?=\{)")
_TABBED = re.compile(r"[\t](?=(?:ext(?:bf|rm|it)?|imes|frac|heta|au|an|o)(?![a-zA-Z]))")
_RETURNED = re.compile(r"\r(?=(?:ight|angle|ho|m)(?![a-zA-Z]))")
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|log|ln|exp|arcsin|arccos|arctan|cis|gcd|lcm|max|min|det"
_REWRITES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\$\$((?:[^$\\]|\\.)*+)\$\$", r"\\[\1\\]"),
        (r"(?<=\d)(?:\{,\}|,\s?\\!\s*)(?=\d{3}(?!\d))", ""),  # of thousands, whereas `(1,000)` may be a pair
        (r"(?<=\d)\{,\}(?=\d)", "."),
        (r"\{,\}|(?<=\d)\s*\{\s?,\s?\}\s*(?=\d)|(?<=\d),\s?\\!\s*(?=\d)", ","),
        (r"(?<=\d)\\!(?=\d)", ""),
        (r"\\(?:operatorname\*?|mathop)\s*\{\s*([a-zA-Z]+)\s*\}", r"\\\1 "),
        (rf"\\math(?:rm|sf|it)\s*\{{\s*({_FUNCTIONS})\s*\}}", r"\\\1 "),
        (r"\\math(?:rm|sf)\s*\{([^{}]*[a-zA-Z]{2}[^{}]*)\}", r"\\text{\1}"),
        (r"(?<=[\d})])((?:\\[,;: ]|[~\s])*)\\math(?:rm|sf)\s*\{[~\s]*([a-df-hj-zA-Z])\s*\}", r"\1\\text{\2}"),
        (r"\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})", r"^\\circ"),
        (r"\\not\s*=", r"\\ne "),
        (r"\\minus(?![a-zA-Z])\s*", "-"),
        (r"\\(?:mathbf|boldsymbol|bm|bold)\s*(?:\{\s*([ijk])\s*\}|([ijk])(?![a-zA-Z]))", r"\\hat{\1\2}"),
        (r"\\left\s*<", r"\\langle "),
        (r"\\right\s*>", r"\\rangle "),
        (r"\\(?:left|right)\s*\.", ""),
    )
]


_SYNONYMS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), "\\frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "\\binom"),
    **dict.fromkeys(("fbox", "framebox"), "\\boxed"),
    **dict.fromkeys(("degree", "degrees"), "^\\circ"),
    **dict.fromkeys(("leq", "leqslant", "leqq"), "\\le"),
    **dict.fromkeys(("geq", "geqslant", "geqq"), "\\ge"),
    **dict.fromkeys(("ldots", "dots", "dotsc", "dotsb"), "\\cdots"),
    **dict.fromkeys(("R", "reals", "Reals"), "\\mathbb{R}"),
    "neq": "\\ne",
    "varnothing": "\\emptyset",
    "colon": ":",
}
_SYNONYM = re.compile(rf"\\({'|'.join(_SYNONYMS)})(?![a-zA-Z])")


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TEXTS = _names("text mbox hbox textbf textrm textit texttt textnormal textsf textsc textmd textup emph")
_WRAPPERS = _names(
    """mathbf mathrm mathit mathsf mathtt mathcal mathnormal mathscr boldsymbol bm bold pmb underline ensuremath
    mathord mathrel mathbin smash textcolor colorbox"""
)
_DECLARATIONS = _names(
    """left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle
    scriptstyle scriptscriptstyle tiny scriptsize footnotesize small normalsize large Large LARGE huge Huge bf rm
    it sf tt bfseries itshape mdseries rmfamily sffamily centering noindent limits nolimits nonumber notag hfill
    null protect boldmath strut mathstrut relax allowbreak"""
)
_DROPPED = _names("color hspace vspace phantom hphantom vphantom label tag pagecolor")
_SPACES = {
    **dict.fromkeys(("\\,", "\\;", "\\:", "\\>", "\\ ", "\\\n"), " "),
    **dict.fromkeys(("\\!", "\\/"), ""),
    **{f"\\{name}": " " for name in ("quad", "qquad", "enspace", "thinspace", "medspace", "thickspace", "enskip")},
}
_LINED_UP = _names("aligned align alignat alignedat gather gathered equation split multline eqnarray center")
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[{}&]|\\", re.DOTALL)
_OPENED = re.compile(r"\*?\s*\{")
_GROUP = re.compile(r"\*?\s*(?:\[[^\[\]{}]*\]\s*)?\{[^{}]*\}")
_ENVIRONMENT = re.compile(r"\s*\{([a-zA-Z]+)\*?\}(?:\s*\[[a-z]\])?")
_DECLARED = re.compile(r"\s*\\([a-zA-Z]+)")
_NEXT_LINE = re.compile(
    r"\*?(?:\[-?[\d.]+\s*[a-z]{2}\])?\s*(?P<goes_on>&?\s*(?:=|\\(?:end|to|Rightarrow|implies)\b|$))?"
)
_DISPLAY = re.compile(r"(?<!\\)\\\[((?:[^\\]|\\[^\[\]])*+)\\\]")


def _latex(text: str) -> str:
    if not text.isprintable():
        text = _RETURNED.sub(r"\\r", _TABBED.sub(r"\\t", text)).translate(_ESCAPED)
    text = _UNESCAPED.sub(r"\\\1", text)
    if _TWICE.search(text):
        text = text.replace("\\\\", "\\")
    text = _SYNONYM.sub(lambda found: _SYNONYMS[found[1]], text)
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    text = _without_type(text)
    return _DISPLAY.sub(lambda found: "\\[" + " ".join(found[1].split()) + "\\]", text)


def _without_type(text: str) -> str:
    """Without the commands that set type: one walk, which knows what each open brace belongs to."""
    out: list[str] = []
    braces: list[str] = []  # what is written where each open brace closes
    sets: list[str] = []  # environments that are open
    in_text = 0  # the depth of the outermost \text that is open, else 0
    at = 0
    while token := _TOKEN.search(text, at):
        out.append(text[at : token.start()])
        found, name, at = token.group(), token.group()[1:], token.end()
        if found == "{":
            declared = _DECLARED.match(text, at)
            sets_type = declared is not None and declared[1] in _DECLARATIONS | {"color"} and not _wants_argument(out)
            braces.append("" if sets_type else "}")
            out.append("" if sets_type else "{")
        elif found == "}":
            out.append(braces.pop() if braces else "}")
            in_text = in_text if len(braces) >= in_text else 0
        elif name in _WRAPPERS or name in _TEXTS:
            if name in ("textcolor", "colorbox") and (colour := _GROUP.match(text, at)):
                at = colour.end()
            if opened := _OPENED.match(text, at):
                at = opened.end()
                wrapped = name in _WRAPPERS or in_text > 0
                braces.append("" if wrapped else "}")
                out.append("" if wrapped else "\\text{")
                in_text = in_text if wrapped else len(braces)
            else:
                out.append(" ")
        elif name in _DROPPED:
            at = group.end() if (group := _GROUP.match(text, at)) else at
        elif name in _DECLARATIONS:
            out.append("" if text[at : at + 1] in "()[]|\\." else " ")
        elif name in ("begin", "end") and (environment := _ENVIRONMENT.match(text, at)):
            at = environment.end()
            sets = [*sets, environment[1]] if name == "begin" else sets[:-1]
            out.append(" " if environment[1] in _LINED_UP else found + environment.group())
        elif found in ("&", "\\\\") and sets and sets[-1] in _LINED_UP:
            if found != "&" and (line := _NEXT_LINE.match(text, at)):
                out.append(" " if line["goes_on"] is not None else ", ")
                at = line.start("goes_on") if line["goes_on"] is not None else line.end()
        else:
            out.append(_SPACES.get(found, found))
    return "".join([*out, text[at:]])


def _wants_argument(out: list[str]) -> bool:
    """Whether what was written last applies to the group that opens now."""
    last = next((piece.rstrip() for piece in reversed(out[-4:]) if piece.strip()), "")
    return last[-1:] in ("^", "_", "}", "]") or bool(re.fullmatch(r"\\[a-zA-Z]+", last))
