"""Reasoning paths as steps."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.tasks.cues import MATHEMATICS
from lema_jax.tasks.steps import label, number_steps, original_solution, split_steps, unlabelled


def test_lines_are_steps_and_labels_go():
    assert split_steps("Step 1: Tom has 5.\n\n2. He buys 3.\n**Step 3:** The answer is 8.") == [
        "Tom has 5.",
        "He buys 3.",
        "The answer is 8.",
    ]


def test_a_paragraph_is_cut_at_its_sentences():
    assert split_steps("Mrs. Lee pays 1.5 dollars. That is $3 for 2. The answer is 3.") == [
        "Mrs. Lee pays 1.5 dollars.",
        "That is $3 for 2.",
        "The answer is 3.",
    ]


def test_a_number_at_the_beginning_is_no_label():
    assert split_steps("64.00\n12 + 3 = 15") == ["64.00", "12 + 3 = 15"]


DRESSES = [
    "{}", "**{}**", "- {}", "### {}", "- **{}**", "> {}", "[{}]", "({})", "<b>{}</b>", "\\textbf{{{}}}", "✅ {}",
    "`{}`", '"{}"', "2. {}", "_{}_", "__{}__", "🔹 **{}**", "| {}", "\\section*{{{}}}",
]  # fmt: skip
NAMES = [
    "Step 2", "step 2", "STEP 2", "Step #2", "Step two", "Step II", "Step 2a", "Step 2.1", "Step (2)", "Step [2]",
    "Step-2", "Step No. 2", "Corrected Step 2", "Step 2 (corrected)", "Step 2/4", "Step 2 of 4",
]  # fmt: skip
SIGNS = [
    ":", " :", " →", " ⇒", " =>", " ->", " -->", " |", " >", " >>", " /", " -", " --", " —", ".", " ;", ")", " •", " »",
    " ▶", " ~", " $\\to$", " \\rightarrow", "：", "",
]  # fmt: skip
SAYINGS = ["2 + 3 = 5 pens.", "Add 2 and 3.", "$2 + 3 = 5$ pens.", "\\(2 + 3 = 5\\) pens."]


@given(*map(st.sampled_from, (DRESSES, NAMES, SIGNS, SAYINGS)))
@settings(max_examples=500)
def test_a_label_in_any_dress_comes_off(dress, name, sign, said):
    line = f"{dress.format(name)}{sign} {said}"
    assert unlabelled(line) == said
    found = label(line.removeprefix("2. "))
    assert found
    assert found[0] == 2


@pytest.mark.parametrize(
    "line",
    [
        "Step 2 is wrong.", "Step 2's sum is 5.", "Steps 2 and 3 add up.", "Step by step we add 5.", "Step one foot.",
        "Step 2, which gave 6, is right.", "step into 2 rooms", "Step 2 gives 5 pens.", "(2 + 3) * 4 = 20", "5 + 3 = 8",
    ],
)  # fmt: skip
def test_a_sentence_about_a_step_has_no_label(line):
    assert label(line) is None


WORDS = st.lists(st.text(alphabet="abc +=", min_size=1).map(lambda text: f"x{text}y"), min_size=2, max_size=6)


@given(WORDS)
def test_numbered_steps_split_into_themselves(steps):
    assert split_steps(number_steps(steps)) == steps


def test_the_block_that_teacher_and_student_share():
    assert original_solution("How many?", ["One.", "The answer is 1."]) == (
        "Question: How many?\nOriginal Solution:\n{\nStep 1: One.\nStep 2: The answer is 1.\n}\nIncorrect Step:"
    )


CHAT = r"""To find the cost, we add:

## Step 1: Find the price
She buys 3 pens of 4 dollars. They cost
\[
3 \times 4 = 12
\]
where 12 is in dollars.

---

**Step 2: Add the paper**
The paper is 5 dollars. So \(12 + 5 = 17\).
$$12 + 5 = 17$$
```python
total = 12 + 5
```
| what | cost |
|------|------|
| all  | 17   |

1. **Check**:
   - 17 - 5 = 12
   - 12 - 12 = 0

### Final Answer
\[ \boxed{17} \]
"""


def test_steps_of_a_chat_answer():
    assert split_steps(CHAT) == [
        "To find the cost, we add:",
        r"Find the price: She buys 3 pens of 4 dollars. They cost \[ 3 \times 4 = 12 \] where 12 is in dollars.",
        r"Add the paper: The paper is 5 dollars. So \(12 + 5 = 17\). $$12 + 5 = 17$$ total = 12 + 5"
        " | what | cost | | all  | 17   |",
        "Check: 17 - 5 = 12 12 - 12 = 0",
        r"Final Answer: \( \boxed{17} \)",
    ]


def test_a_formula_that_is_first_belongs_to_what_follows():
    assert split_steps("\\[\n5 + 3 = 8\n\\]\nSo she has 8.\nThe answer is 8.") == [
        r"\( 5 + 3 = 8 \) So she has 8.",
        "The answer is 8.",
    ]


def test_thinking_is_no_step():
    assert split_steps("Perhaps 5?\nOr 6.\n</think>\n3 + 4 = 7\nThe answer is 7.") == ["3 + 4 = 7", "The answer is 7."]
    assert split_steps("<think>Perhaps 5?\nThe answer is 5.") == []


LINES = st.sampled_from(
    [
        "## Step 2: Title", "### More", "**Step 1:** one", "**Step 3**", "**Bold title**", "1. **Item**: text",
        "   - nested words", "\\[", "\\]", "x = 5", "\\[ y = 6 \\]", "$$z = 7$$", "$$", "---", "```", "code = 1",
        "| a | b |", "|---|---|", "Two sentences. In a line.", "where it is 5.", "", "Step 4: four", "- bullet",
        "#### 72", "The answer is 8.", "\\begin{align*}", "u &= 3 \\\\", "\\end{align*}", "Step 5 - five", "(6) six",
    ]
)  # fmt: skip


@given(st.lists(LINES, max_size=12).map("\n".join) | st.text(alphabet="ab1.$\\[]*#-|` \nStep:", max_size=60))
def test_steps_keep_every_word_and_split_into_themselves(text):
    steps = split_steps(text)
    assert split_steps("\n".join(steps)) == steps
    for step in steps:
        assert step.strip() == step != ""
        assert "\n" not in step
        assert not re.match(r"(?:#{1,3} |\*{0,2}Step \d+[:.]|---$|```$|\\\[$|\\\]$)", step)


@given(st.lists(LINES, max_size=12))
def test_no_word_of_a_chat_answer_is_lost(lines):
    def words(text):
        return [word for word in re.findall(r"[A-Za-z]{2,}", text) if word != "Step"]

    assert words(" ".join(split_steps("\n".join(lines)))) == words("\n".join(lines))


@pytest.mark.parametrize(
    "unit", ["1. ", "\\[\n", "$$ ", "**", "# ", "| ", "A. ", "$$ A. ", "```\n", "Step 1: ", " ", "\\]"]
)
def test_hostile_texts_take_linear_time(unit):
    split_steps(unit * 20_000 + "x")


@pytest.mark.parametrize("next_question", ["\n\nQuestion: Tim has 3 hens.", f"\n{MATHEMATICS}.\nQuestion: Tim has 3."])
def test_what_a_path_says_of_the_next_question_is_no_step(next_question):
    path = "Ann has 3 + 4 = 7 hens.\nThe answer is 7."
    assert split_steps(path + next_question + "\nAnswer: He has 3.") == path.split("\n")
