"""Where a text states its answer: whichever cue, dress and prose, the number that a person would read is read."""

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lema_jax.records import Problem, Verdict
from lema_jax.tasks import answers, cues, grade, gsm8k, math, presentation

CUES = [
    "The answer is {}",
    "the final answer is: {}",
    "The answer, therefore, is {}",
    "The answer would be {}",
    "The answers are {}",
    "So the answer to the question of how many there are is {}",
    "Answer: {}",
    "**Answer**: {}",
    "**Final Answer:** {}",
    "## Answer\n{}",
    "**Final Answer**\n\n{}",
    "ANSWER: {}",
    "Answer - {}",
    "Answer (in all): {}",
    "Ans: {}",
    "A: {}",
    "#### {}",
    "and so we are done. #### {}",
    "#### The answer is {}",
    "The answer is:\n\n{}",
    "The answer is as follows:\n{}",
    "\\boxed{{{}}}",
    "The answer is $\\boxed{{{}}}$",
    "Die Antwort lautet {}",
    "La respuesta final es {}",
    "La réponse est {}",
    "A resposta é {}",
    "La risposta è {}",
    "Het antwoord is {}",
    "Ответ: {}",
    "Odpowiedź: {}",
    "Đáp án là {}",
    "Jibu ni {}",
    "所以答案是{}",
    "最终答案：{}",
    "答えは{}",
    "정답은 {}",
    "คำตอบคือ {}",
    "సమాధానం: {}",
    "উত্তর: {}",
    "उत्तर: {}",
]
DRESSES = [
    "{}",
    "**{}**",
    "*{}*",
    "`{}`",
    "${}$",
    "\\({}\\)",
    "$$\n{}\n$$",
    "$\\mathbf{{{}}}$",
    "\\textcolor{{red}}{{{}}}",
]
NUMBERS = {
    "12": "12",
    "-12": "-12",
    "−7": "-7",
    "1,234": "1234",
    "1,234,567.50": "1234567.5",
    "3.50": "3.5",
    "3/4": "0.75",
    "½": "0.5",
    "2 1/2": "2.5",
    "50%": "50%",
    "１２": "12",
    "£12": "12",
    "x = 12": "12",
    "3 \\times 4 = 12": "12",
    "12 apples": "12",
    "12 cm²": "12",
}
PROSE_AFTER = [
    "",
    ".",
    ".\n\nI hope it is correct.",
    ".\nLet me know if step 3 is not clear!",
    " (that is 3 more than 9).",
    ", because 3 + 9 = 12.",
    ". The answer is correct to 2 decimal places.",
    ".</s>",
    ".\n\nQuestion: What is 5 + 6?\nThe answer is 11.",
]


@pytest.mark.slow
@given(*map(st.sampled_from, (CUES, DRESSES, sorted(NUMBERS), PROSE_AFTER)))
@settings(max_examples=1_500)
def test_the_number_is_read_whatever_stands_around_it(cue, dress, number, prose):
    text = f"She has 3 bags of 4.\n{cue.format(dress.format(number))}{prose}"
    assert answers.final_number(text) == NUMBERS[number]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 7. No: the answer is 8.", "8"),
        ("\\boxed{7}. Wait, the answer is 8.", "8"),
        ("The answer is 7, so \\boxed{8}.", "8"),
        ("The answer is 8.\n\nWait, is that so? 5 + 3 = 8, yes.", "8"),
        ("The answer is 8. Let me check the answer: 3 + 5 = 8, and 2 + 6 = 8.", "8"),
        ("Answer: 8\n\nIn the answer: 3 bags.", "8"),
        ("The answer is 8. The answer is not 9.", "8"),
        ("The answer is not 9 but 8.", "8"),
        ("12 is the answer.", "12"),
        ("\\boxed{Answer: 5}", "5"),
        ("\\boxed{5}, that is \\boxed{5}", "5"),
        ("<answer>5</answer> It took 3 steps.", "5"),
        ('{"answer": "5", "steps": 3}', "5"),
        ("So the answer is:\n- 12", "12"),
        ("The answer is $12 for Tom", "12"),
        ("<think>The answer is 6.</think>The answer is 5.", "5"),
        ("#### 1. Add\n3 + 5 = 8\n#### 2. Halve\n8 / 2 = 4\n#### 4", "4"),
        ("#### Step 2: Halve 8\nThe answer is 4.", "4"),
        ("If the answer is 5, Tom is right.", None),
        ("Is the answer 5? The answer is 5?", None),
        ("The answer is 5 and the other answer is 6. \\boxed{5} and \\boxed{6}", None),
        ("The answer is 1) 10 2) 5", None),
        ("#### Step 2: add 4", None),
    ],
)
def test_which_statement_counts(text, answer):
    assert answers.final_number(text) == answer


@pytest.mark.parametrize(
    "another",
    [
        "\nQuestion: Tom has 3.",
        "\nQuestion 2: Tom has 3.",
        "\n\nProblem 12:\nTom has 3.",
        "\n**Question:** Tom has 3.",
        "\n\n### Question: Tom has 3.",
        "\n## Problem\nTom has 3.",
        "\n### Instruction:\nTom has 3.\n\n### Response:",
        "\nHuman: Tom has 3.\nAssistant:",
        "<|endoftext|>Question: Tom has 3.",
        "<|im_end|>Human: Tom has 3.",
        "</s>Tom has 3.",
        "<|end_of_text|>\nHuman: Tom has 3.",
    ],
)
def test_what_follows_another_question_behind_an_answer_is_not_read(another):
    for stated in ("The answer is 8.", "\\boxed{8}", "#### 8", "**Answer:** 8 apples"):
        for then in ("The answer is 4.", "#### 4", "\\boxed{4}", "4"):
            assert answers.final_number(f"5 + 3 = 8.\n{stated}{another}\n{then}") == "8"
    assert answers.final_number(f"5 + 3 = 8.{another}\nThe answer is 4.") in ("4", None)


@pytest.mark.parametrize(
    "text",
    [
        "Question: Tom has 3.\nAnswer: Let's think step by step.\nProblem: how many?\nThe answer is 4.",
        "Let me say it again.\nQuestion: Tom has 3.\nThe answer is 4.",
        "Question 1: How many at first?\nAnswer: 3\nQuestion 2: How many now?\nAnswer: 4",
        "The answer is 3. The problem: one is lost. So the answer is 4.",
        "</s>The answer is 4.",
    ],
)
def test_a_question_of_the_path_itself_ends_nothing(text):
    assert answers.final_number(text) == "4"


def test_a_bare_number_behind_another_question_is_no_answer():
    text = "She has 8 apples.\n\nQuestion: Tom has 3.\n4"
    assert answers.final_number(text) is None
    assert answers.last_number(text) == "8"
    assert (
        math.extract(
            "$8$\n\nQuestion: Tom has 3.\n$4$", Problem(id="p", task="math", split="test", question="q", gold="8")
        )
        == "$8$"
    )


SOLD = "Natalia sold 48/2 = 24 clips in May.{}Natalia sold 48+24 = 72 clips in all."


@pytest.mark.parametrize(
    "heading", ["Answer: {}", "**Answer:**\n{}", "## Answer\n{}", "A: {}", "答案：{}", "<answer>{}</answer>"]
)
@pytest.mark.parametrize("way", [SOLD.format(" "), SOLD.format("\n"), f"Let's think step by step.\n{SOLD.format(' ')}"])
def test_a_heading_over_the_way_to_an_answer_states_none(heading, way):
    assert answers.final_number(heading.format(way)) is None
    assert answers.final_number(f"{heading.format(way)}\nThe answer is 72.") == "72"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("To find the answer:\n1. Halve 48.\n2. Add 48 and 24.", None),
        ("To find the answer:\n1. 48/2 = 24 clips\n2. 48+24 = 72 clips", None),
        ("Answer: 72", "72"),
        ("Answer: 72 clips. Explanation: 48/2 = 24, and 72 - 24 = 48.", "72"),
        ("Answer: 72 (48 + 24 = 72).\nCheck: 72 - 24 = 48.", "72"),
        ("Answer: She sold 72 clips.\n\nExplanation:\n48/2 = 24\n48 + 24 = 72", "72"),
        ("Answer: She sold 72 clips.", "72"),
        ("Answer: 48 + 24 = 72 clips.", "72"),
        ("Answer: She sold 72 clips because 48 + 24 = 72, and 24 * 2 = 48.", "72"),
        ("The answer is 72 clips. 72/2 = 36 were red.", "72"),
    ],
)
def test_a_heading_over_an_answer_states_it(text, answer):
    assert answers.final_number(text) == answer


def test_a_factorial_ends_no_sentence():
    problem = Problem(id="p", task="math", split="test", question="q", gold="144")
    assert math.same(math.extract("Answer: There are $4! \\times 3! = 144$ ways.", problem) or "", "144")


@pytest.mark.slow
def test_gold_rationales_are_right_before_the_next_question_and_seldom_read_under_a_heading(data_dir):
    problems = gsm8k.load("test", data_dir)
    wrong = 0
    for problem, other in itertools.pairwise(problems):
        said = gsm8k.completion(problem)
        goes_on = f"{said}\n\n{gsm8k.prompt(other)}{gsm8k.completion(other)}"
        assert grade(problem, goes_on, truncated=False)[1] is Verdict.RIGHT
        wrong += grade(problem, f"Answer: {said.rpartition(chr(10))[0]}", truncated=False)[1] is Verdict.WRONG
    assert wrong <= 40


def test_boxes_of_one_sentence_are_one_statement():
    assert cues.last_boxes("so $\\boxed{3}$ and $\\boxed{5}$.") == ["3", "5"]
    assert cues.last_boxes("$x=\\boxed{3}$ or, with $y < 0$, $x = \\boxed{5}$") == ["3", "5"]
    assert cues.last_boxes("$\\boxed{3}$. Also, $\\boxed{5}$.") == ["5"]
    assert cues.last_boxes("$\\boxed{3}$, so $\\boxed{5}$.") == ["5"]
    assert cues.last_boxes("$\\boxed{\\frac{6}{2}} = \\boxed{3}$") == ["3"]
    assert cues.last_boxes("nothing") == []


def test_a_thought_that_does_not_end_is_cut_and_never_right():
    problem = Problem(id="p", task="gsm8k", split="test", question="q", gold="5")
    assert grade(problem, "<think>The answer is 5.", truncated=False) == (None, Verdict.TRUNCATED)
    assert grade(problem, "The answer is 5.\n<think>But", truncated=True) == (None, Verdict.TRUNCATED)
    assert grade(problem, "<think>Is it 6?</think>\n\\boxed{5}", truncated=False) == ("5", Verdict.RIGHT)


REPEATED = [
    *"\\{}[]()<>$*_`~#&^=|.,:;-+/0 9aAé½²答\n\t",
    "**",
    "$$",
    "\\[",
    "\\(",
    "{}",
    "a ",
    " *",
    "*a",
    "_a",
    "1,",
    "1 ",
    "<|",
]
REPEATED += ["A:", "0.", "- ", "\\\\", "\\ ", "&;", "~~", "##", "-1", "a.", "答案", ". ", "\n ", "= ", "^{", "1:", "α1"]


REPEATED += [
    "\nQuestion:",
    "\n\nQuestion:",
    "\nQuestion 1:\nA: 5",
    "</s>",
    "<|endoftext|>",
    "Please solve the following math ",
    "A: a 1. 1+1=1 ",
    "Answer:\n1. a\n2. b",
    "Answer: a 1.\n" + "+1=1" * 480,
    " (1) + ",
    "\\[\\",
    "<<",
    "\\boxed{",
    "\\boxed{$",
    "$$<<",
    "the answer is ",
    "#### ",
    "(A) ",
    "<think>",
    "\\frac{",
    "\\[\\]",
]
GOLDS = {"gsm8k": "5", "math": "\\frac{1}{2}", "csqa": "cat"}


@pytest.mark.slow
@pytest.mark.parametrize("task", GOLDS)
@pytest.mark.parametrize("unit", REPEATED)
def test_a_text_of_one_thing_repeated_is_read_at_once(unit, task):
    choices = ("cat", "dog") if task == "csqa" else ()
    problem = Problem(id="p", task=task, split="test", question="q", gold=GOLDS[task], choices=choices)
    text = unit * (100_000 // len(unit))
    for statement in (text, f"The answer is {text}", f"\\boxed{{{text}"):
        times = []
        for _ in range(3):  # the machine may be busy
            start = time.process_time()
            grade(problem, statement, truncated=False)
            times.append(time.process_time() - start)
            if times[-1] < 0.2:
                break
        assert min(times) < 0.2, (unit, times)


@given(st.text(alphabet="The answer is box{}\\#$*_1234567890.,:/%-\n ", max_size=300))
def test_a_document_that_was_read_once_reads_the_same_again(text):
    once = presentation.document(text)
    assert [one.text for one in cues.statements(once)] == [
        one.text for one in cues.statements(presentation.plain(once))
    ]
