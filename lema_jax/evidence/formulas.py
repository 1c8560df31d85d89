r"""LaTeX in models' texts as MathML, which browsers draw without a script and without a network.

A text comes from anywhere: everything in it is escaped, sizes are bounded, and what cannot be drawn stands as it was
written. Of the library's result only the elements and attributes that are listed here go into the page.
"""

import functools
import html
import math
import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import latex2mathml.converter
from markupsafe import Markup, escape

_LONGEST = 2_000  # characters of a formula
_DEEPEST = 40  # braces, brackets and elements inside one another
_MOST_ELEMENTS = 2_000  # of a formula
_MOST_FORMULAS = 300  # of a text
_WIDEST = 10.0  # of a space, in whatever unit

# A dollar sign is money unless it opens and closes: no white space inside of either, no digit behind the second.
_FORMULA = re.compile(
    r"""(?:\n[^\S\n]*)?\\\[(?P<square>.{1,2000}?)\\\](?:[^\S\n]*\n)?
    |\\\((?P<round>.{1,2000}?)\\\)
    |(?:\n[^\S\n]*)?\$\$(?P<dollars>[^$]+)\$\$(?:[^\S\n]*\n)?
    |(?<![\\$\w])\$(?P<dollar>[^\s$](?:(?:\\\$|[^$\n])*?[^\s$\\])?)\$(?![\d$])
    |(?P<environment>\\begin\{(?P<name>(?:align|equation|gather|array|cases|[bpvBV]?matrix)\*?)\}.{1,2000}?\\end\{(?P=name)\})
    |(?P<boxed>\\f?boxed\s*\{(?:[^{}]++|\{(?:[^{}]++|\{[^{}]*+\})*+\})*+\})""",
    re.DOTALL | re.VERBOSE,
)
_INLINE = ("round", "dollar", "boxed")
# Commands that define others may grow without bound; the rest leave mathematics for links and styles.
_REFUSED = re.compile(
    r"\\(?:def|gdef|edef|xdef|let|newcommand|renewcommand|providecommand|newenvironment|DeclareMathOperator|require"
    r"|href|url|style|class|cssId|html\w*|includegraphics|input|special)(?![A-Za-z])"
)
_ELEMENTS = frozenset(
    {
        "maction", "math", "menclose", "merror", "mfenced", "mfrac", "mi", "mmultiscripts", "mn", "mo",
        "mover", "mpadded", "mphantom", "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle",
        "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "none",
    }
)  # fmt: skip
_ATTRIBUTES = frozenset(
    {
        "accent", "accentunder", "columnalign", "columnlines", "columnspacing", "depth", "display",
        "displaystyle", "fence", "form", "height", "largeop", "linethickness", "lspace", "mathsize",
        "mathvariant", "maxsize", "minsize", "movablelimits", "notation", "rowlines", "rowspacing", "rspace",
        "scriptlevel", "separator", "stretchy", "symmetric", "voffset", "width",
    }
)  # fmt: skip
_KNOWN = frozenset(
    {
        "Bmatrix", "Vmatrix", "align", "align*", "array", "bmatrix", "cases", "matrix", "pmatrix",
        "smallmatrix", "vmatrix",
    }
)  # fmt: skip
_AS_ALIGN = frozenset(
    {
        "aligned", "alignedat", "equation", "equation*", "gather", "gather*", "gathered", "split",
    }
)  # fmt: skip
_VALUE = re.compile(r"[\w.%+ -]{0,40}")


def rendered(text: str) -> Markup:
    """The text escaped, with each formula that can be drawn as MathML."""
    parts, end = [], 0
    for number, found in enumerate(_FORMULA.finditer(text)):
        drawn = _drawn(found) if number < _MOST_FORMULAS else None
        if drawn is not None:
            before = text[end : found.start()]
            parts += [escape(before), drawn]
            end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def _drawn(found: re.Match[str]) -> Markup | None:
    """The formula; one of its own line is drawn so, and scrolls where it is wider than the page."""
    display = found.lastgroup not in _INLINE
    drawn = formula(_content(found), display=display)
    return Markup('<span class="formula">{}</span>').format(drawn) if display and drawn is not None else drawn


@functools.lru_cache(maxsize=4096)
def formula(latex: str, *, display: bool = False) -> Markup | None:
    """A formula as MathML, its LaTeX beside it for those who hover; None where it cannot be drawn."""
    if len(latex) > _LONGEST or _REFUSED.search(latex) or _depth(latex) > _DEEPEST or not latex.strip():
        return None
    shown = "block" if display else "inline"
    try:
        tree = latex2mathml.converter.convert_to_element(_tidy(latex), display=shown)
        pieces = list(_written(tree, 0))
    except Exception:  # of the library's own kinds, and of any other where it meets what it does not know
        return None
    if len(pieces) > 3 * _MOST_ELEMENTS:
        return None
    opened = Markup('<math display="{}" title="{}">').format(shown, " ".join(latex.split()))
    return Markup("").join([opened, *pieces[1:]])


def _content(found: re.Match[str]) -> str:
    return next(found[name] for name in ("square", "round", "dollars", "dollar", "environment", "boxed") if found[name])


def _tidy(latex: str) -> str:
    """In the words that the library knows; a `%` is that of a percentage, not a comment.

    Raises:
      ValueError: an environment that it does not know, of which it would show the alignment signs.
    """
    for name in set(re.findall(r"\\begin\s*\{([^}]*)\}", latex)):
        if name not in _KNOWN:
            if name not in _AS_ALIGN:
                raise ValueError(name)
            latex = latex.replace(f"\\begin{{{name}}}", r"\begin{align*}").replace(f"\\end{{{name}}}", r"\end{align*}")
    return re.sub(r"(?<!\\)%", r"\\%", latex.strip())


def _depth(latex: str) -> float:
    """How far groups stand inside one another; infinite where one is not closed, or closed that was not opened."""
    deepest, depth = 0.0, 0
    for sign in re.findall(r"\\left(?![A-Za-z])|\\right(?![A-Za-z])|\\begin|\\end|\\.|[{}]", latex, re.DOTALL):
        if sign in ("{", "\\left", "\\begin"):
            depth += 1
        elif sign in ("}", "\\right", "\\end"):
            depth -= 1
        deepest = max(deepest, depth if depth >= 0 else math.inf)
    return deepest if depth == 0 else math.inf


def _written(element: Element, depth: int) -> Iterator[Markup]:
    """The element as HTML: its opening tag, what is inside, its closing tag.

    Raises:
      ValueError: an element that is not listed, or too many inside one another.
    """
    if element.tag not in _ELEMENTS or depth > _DEEPEST:
        raise ValueError(element.tag)
    given = ((name, value) for name, value in element.attrib.items() if _is_harmless(name, value))
    attributes = Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in given)
    yield Markup("<{}{}>").format(element.tag, attributes)
    yield _text(element.text)
    for child in element:
        yield from _written(child, depth + 1)
        yield _text(child.tail)
    yield Markup("</{}>").format(element.tag)


def _is_harmless(name: str, value: str) -> bool:
    numbers = re.findall(r"\d+(?:\.\d*)?", value)
    return name in _ATTRIBUTES and bool(_VALUE.fullmatch(value)) and all(float(n) <= _WIDEST for n in numbers)


def _text(text: str | None) -> Markup:
    """The library writes signs as character references; all is read and escaped again."""
    return escape(html.unescape(text or ""))
