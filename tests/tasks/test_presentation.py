"""The look of a text is taken away once: every spelling of a sign becomes one, and what is plain stays as it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.tasks import presentation

LOOKS = [
    # Unicode
    ("−5 –5 －5", "-5 -5 -5"),
    ("x² y₁ x⁻¹ 5㎡", "x^{2} y_{1} x^{-1} 5m^{2}"),
    ("½ 2½ ⅐ ¹⁄₂", "\\frac{1}{2} 2\\frac{1}{2} \\frac{1}{7} \\frac{1}{2}"),
    ("√12 √(3)", "\\sqrt{12} \\sqrt (3)"),
    ("４２ ٤٢ 5️⃣ 5̲", "42 42 5 5"),
    ("3，4；（1，2）", "3,4;(1,2)"),
    ("ℝ π∞", "\\mathbb{R} \\pi \\infty "),
    ("zero\u200bwidth\ufeff", "zerowidth"),
    ("1\u202f000", "1 000"),
    ("Tom’s “five”", 'Tom\'s "five"'),
    # Markdown
    ("**Answer**: *12*", "Answer: 12"),
    ("**Answer: *5***", "Answer: 5"),
    ("***12***", "12"),
    ("__12__ and _5_", "12 and 5"),
    ("`12`", "12"),
    ("~~5~~ 6", " 6"),
    ("**12", "12"),
    ("x**2 + 2*3*4 + 2 * 3 + x_1", "x**2 + 2*3*4 + 2 * 3 + x_1"),
    # HTML
    ("&minus;5 &lt; 2", "-5 < 2"),
    # LaTeX
    ("\\boxed{\\textcolor{red}{5}}", "\\boxed{5}"),
    ("{\\color{blue}{5}}", "{5}"),
    ("\\textbf{\\textcolor{red}{A}}", "\\text{A}"),
    ("\\mbox{ cm}", "\\text{ cm}"),
    ("\\mathrm{cm} \\mathbf{5}", "\\text{cm} 5"),
    ("\\operatorname{cis} 5", "\\cis  5"),
    ("\\left(1, 2\\right) \\bigl(", "(1, 2) ("),
    ("$$\n12\n$$", "\\[12\\]"),
    ("\\begin{aligned} x &= 1 \\\\ y &= 2\\end{aligned}", "x = 1 , y = 2"),
    ("\\begin{align*} 2+3 &= 4+1 \\\\[2mm] &= 5\\end{align*}", "2+3 = 4+1 = 5"),
    ("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4\\end{pmatrix}",) * 2,
    ("1{,}000 1,\\!000 2{,}5", "1000 1000 2.5"),
    ("5\\,\\mathrm{m}", "5 \\text{m}"),
    ("-2 \\\\le x \\\\cup y", "-2 \\le x \\cup y"),
    ("\\dfrac12 \\tfrac12", "\\frac12 \\frac12"),
    ("30^{\\circ} 30\\degree 30°", "30^\\circ 30^\\circ 30^\\circ"),
    # backslashes that were lost or doubled on the way
    ("\boxed{5} \frac12 5\times3", "\\boxed{5} \\frac12 5\\times3"),
    ("\\\\boxed{\\\\frac{1}{2}}", "\\boxed{\\frac{1}{2}}"),
    ("frac{1}{2}", "\\frac{1}{2}"),
]


@pytest.mark.parametrize(("text", "plain"), LOOKS)
def test_every_look_becomes_one(text, plain):
    seen = presentation.plain(text)
    assert " ".join(seen.split()) == " ".join(plain.split())
    assert presentation.plain(seen) == seen


def test_a_document_loses_its_headings_fences_and_tags():
    text = "## Answer\n12 <b>apples</b><br>so\n```python\nx\n```\n#### 12<|im_end|>"
    assert presentation.document(text).split() == ["Answer", "12", "apples", "so", "x", "####", "12"]


@given(st.text(max_size=200) | st.text(alphabet="ab 12*_`~#<>&;\\{}[]()$^=frac×²½\n", max_size=200))
def test_no_text_raises(text):
    assert isinstance(presentation.document(text), str)


@given(st.text(alphabet="abcxyz 0123456789.,:;!?()'\"+=/-\n", max_size=200))
def test_plain_prose_and_arithmetic_stay_as_they_are(text):
    assert presentation.plain(text) == text
