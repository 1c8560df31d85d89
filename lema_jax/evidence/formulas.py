r"""LaTeX in models' texts as MathML, which browsers render without scripts or network.

Texts are untrusted: everything is escaped, sizes are bounded, and a formula that cannot be rendered stays as its LaTeX.
Of the library's output only the elements and attributes in the lists below enter the page.
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

# A dollar sign is money unless it is one of a pair without white space inside, and no digit follows the second.
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
# Definitions may expand without bound; the other commands are links, styles and files.
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
    """The text escaped, with its formulas as MathML where they can be rendered."""
    parts, end = [], 0
    for number, found in enumerate(_FORMULA.finditer(text)):
        drawn = _drawn(found) if number < _MOST_FORMULAS else None
        if drawn is not None:
            before = text[end : found.start()]
            parts += [escape(before), drawn]
            end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def _drawn(found: re.Match[str]) -> Markup | None:
    """The formula as MathML; a display formula scrolls where it is wider than the page."""
    display = found.lastgroup not in _INLINE
    drawn = formula(_content(found), display=display)
    return Markup('<span class="formula">{}</span>').format(drawn) if display and drawn is not None else drawn


@functools.lru_cache(maxsize=4096)
def formula(latex: str, *, display: bool = False) -> Markup | None:
    """A formula as MathML, with its LaTeX as the tooltip; None where it cannot be rendered."""
    if len(latex) > _LONGEST or _REFUSED.search(latex) or _depth(latex) > _DEEPEST or not latex.strip():
        return None
    shown = "block" if display else "inline"
    try:
        tree = latex2mathml.converter.convert_to_element(_tidy(latex), display=shown)
        parts = list(_html(tree, 0))
    except Exception:  # the library raises many types on LaTeX that it does not support
        return None
    if len(parts) > 3 * _MOST_ELEMENTS:
        return None
    opened = Markup('<math display="{}" title="{}">').format(shown, " ".join(latex.split()))
    return Markup("").join([opened, *parts[1:]])


def _content(found: re.Match[str]) -> str:
    return next(found[name] for name in ("square", "round", "dollars", "dollar", "environment", "boxed") if found[name])


def _tidy(latex: str) -> str:
    """The formula in environments that the library supports; a `%` is a percent sign, not a comment.

    Raises:
      ValueError: an environment that has no supported equivalent, whose `&` would be shown.
    """
    for name in set(re.findall(r"\\begin\s*\{([^}]*)\}", latex)):
        if name not in _KNOWN:
            if name not in _AS_ALIGN:
                raise ValueError(name)
            latex = latex.replace(f"\\begin{{{name}}}", r"\begin{align*}").replace(f"\\end{{{name}}}", r"\end{align*}")
    return re.sub(r"(?<!\\)%", r"\\%", latex.strip())


def _depth(latex: str) -> float:
    """Nesting depth of groups; infinite where they are unbalanced."""
    deepest, depth = 0.0, 0
    for sign in re.findall(r"\\left(?![A-Za-z])|\\right(?![A-Za-z])|\\begin|\\end|\\.|[{}]", latex, re.DOTALL):
        if sign in ("{", "\\left", "\\begin"):
            depth += 1
        elif sign in ("}", "\\right", "\\end"):
            depth -= 1
        deepest = max(deepest, depth if depth >= 0 else math.inf)
    return deepest if depth == 0 else math.inf


def _html(element: Element, depth: int) -> Iterator[Markup]:
    """The element as HTML: opening tag, content, closing tag.

    Raises:
      ValueError: an element that is not in the list, or too deep a nesting.
    """
    if element.tag not in _ELEMENTS or depth > _DEEPEST:
        raise ValueError(element.tag)
    given = ((name, value) for name, value in element.attrib.items() if _is_harmless(name, value))
    attributes = Markup("").join(Markup(' {}="{}"').format(name, value) for name, value in given)
    yield Markup("<{}{}>").format(element.tag, attributes)
    yield _text(element.text)
    for child in element:
        yield from _html(child, depth + 1)
        yield _text(child.tail)
    yield Markup("</{}>").format(element.tag)


def _is_harmless(name: str, value: str) -> bool:
    numbers = re.findall(r"\d+(?:\.\d*)?", value)
    return name in _ATTRIBUTES and bool(_VALUE.fullmatch(value)) and all(float(n) <= _WIDEST for n in numbers)


def _text(text: str | None) -> Markup:
    """The text of an element, whose character references are resolved and escaped again."""
    return escape(html.unescape(text or ""))
