r"""LaTeX on a page: drawn where it can be, as it was written where it cannot, harmless and quick whatever comes in."""

import html
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax import tasks
from lema_jax.evidence import formulas
from tests.html_page import Parsed

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;img src=x onerror=alert(1)&#62;",
    "</math><script>alert(1)</script>",
    "'-alert(1)-'",
)


def drawn(text: str) -> Parsed:
    return Parsed(str(formulas.rendered(text)))


def said(text: str) -> str:
    return "".join(drawn(text).text)


@pytest.mark.parametrize(
    "text",
    [
        r"\(\frac{1}{2} \times 16\)",
        r"\[ x^2 = 4 \]",
        "\\[\n\\boxed{72}\n\\]",
        r"$x < 3$",
        r"$$\sqrt{2}$$",
        r"so \boxed{\frac{3}{4}} is it",
        r"\begin{align*} a &= 1 \\ b &= 2 \end{align*}",
        r"\[\begin{aligned} a &= 50% \\ b &= 2 \end{aligned}\]",
        r"$\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}$",
        r"\(48 \text{ clips} + \$5\)",
    ],
)
def test_what_is_drawn(text):
    tags = [tag for tag, _ in drawn(text).tags]
    assert tags.count("math") == 1
    assert "\\frac" not in said(text)
    assert "&" not in said(text)


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and she pays with $20.",
        "$5/$6, $7-$8 or US$9 and A$10",
        "He has $12, so 12/2=$6 are left. He spends $3.",
        r"\$5 + \$6",
        "<<48/2=24>>24 clips",
        r"$\begin{tabular}{c} 1 & 2 \end{tabular}$",
        r"\(\frac{1\)",
        r"\[ never closed",
        r"$\href{javascript:alert(1)}{x}$",
        r"$\def\a{\a\a}\a$",
        r"$\newcommand{\a}{\b\b}\newcommand{\b}{\a\a}\a$",
        r"$\style{position:fixed}{x}$",
        "$" + "{" * 200 + "x" + "}" * 200 + "$",
        r"\(" + "x + " * 1000 + r"x\)",
        "",
    ],
)
def test_what_stands_as_it_was_written(text):
    assert str(formulas.rendered(text)) == html.escape(text, quote=True).replace("&#x27;", "&#39;").replace(
        "&quot;", "&#34;"
    )


@pytest.mark.parametrize("evil", HOSTILE)
@pytest.mark.parametrize(
    "around", ["{}", r"\({}\)", r"\[\text{{{}}}\]", r"$\mathrm{{{}}}$", r"\boxed{{{}}}", r"\(\operatorname{{{}}} x\)"]
)
def test_no_text_becomes_a_tag_or_an_attribute(evil, around):
    text = around.format(evil)
    for tag, attributes in drawn(text).tags:
        assert tag in formulas._ELEMENTS | {"span"}
        assert attributes.keys() <= formulas._ATTRIBUTES | {"title", "class"}
    assert not drawn(text).scripts


SIGNS = ("$", "$$", r"\(", r"\)", r"\[", r"\]", "{", "}", "^", "_", "&", r"\\", "\n", " ", "x", "12", "%", "'")
COMMANDS = (r"\frac", r"\sqrt", r"\left(", r"\right)", r"\boxed{", r"\text{", r"\begin{array}{c}", r"\end{array}")
OTHERS = (r"\color{red}", r"\overset", r"\substack{", r"\limits", r"\not", r"\mathbb", r"\operatorname{", r"\hspace")
PIECES = st.sampled_from((*HOSTILE, *SIGNS, *COMMANDS, *OTHERS, r"\unknown"))


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=80))
def test_whatever_comes_in_is_balanced_and_listed(text):
    parsed = drawn(text)
    assert {tag for tag, _ in parsed.tags} <= formulas._ELEMENTS | {"span"}
    for _, attributes in parsed.tags:
        assert attributes.keys() <= formulas._ATTRIBUTES | {"title", "class"}


@pytest.mark.parametrize(
    "piece", [r"\[ x ", r"\boxed{", r"\begin{align}", "$x", "${", r"\(x\)", "$$", "{" * 50, r"\boxed{a{b{"]
)
def test_a_long_text_takes_no_longer_than_it_is_long(piece):
    started = time.process_time()
    formulas.rendered(piece * 4000)
    assert time.process_time() - started < 5


def test_no_space_is_wider_than_the_page():
    for text in (r"\(\hspace{9999em}x\)", r"\(\rule{900em}{900em}\)", r"\(\raise{99em}{x}\)", r"\(\kern999em x\)"):
        for _, attributes in drawn(text).tags:
            assert not {"9999em", "900em", "99em", "999em"} & set(attributes.values())


@pytest.mark.slow
def test_nearly_all_formulas_of_math_are_drawn(data_dir: Path):
    found = [
        m for p in tasks.get("math").load("train", data_dir)[::60] for m in formulas._FORMULA.finditer(p.rationale)
    ]
    failed = [m.group() for m in found if formulas._drawn(m) is None]
    assert len(found) > 500
    assert len(failed) <= len(found) // 200, failed
