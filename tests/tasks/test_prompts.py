"""Other prompts than the paper's."""

from lema_jax.records import Problem
from lema_jax.tasks import gsm8k, prompts

ASKED = Problem(id="p", task="gsm8k", split="test", question="How many?", gold="5", rationale="2 + 3 = <<2+3=5>>5.")


def test_wizardmath():
    assert prompts.wizardmath(ASKED) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHow many?\n\n### Response: Let's think step by step."
    )


def test_few_shot_ends_where_the_model_goes_on():
    shot = ASKED.model_copy(update={"question": "And before?"})
    assert prompts.few_shot(gsm8k, [shot], ASKED) == (
        "Question: And before?\nAnswer: Let's think step by step.\n2 + 3 = 5.\nThe answer is 5.\n\n"
        "Question: How many?\nAnswer: Let's think step by step.\n"
    )


def test_an_answer_that_goes_on_with_another_question_is_read_before_it():
    text = "2 + 3 = 5.\nThe answer is 5.\n\nQuestion: And then?\nAnswer: Let's think step by step.\nThe answer is 7."
    assert gsm8k.extract(text, ASKED) == "5"


def test_chat_is_rendered_by_the_models_own_template():
    rendered = prompts.chat(
        gsm8k, ASKED, lambda messages: f"<{messages[0]['role']}>{messages[0]['content']}<assistant>"
    )
    assert rendered == (
        "<user>Please solve the following math problem.\nQuestion: How many?\nLet's think step by step, and end with"
        " `The answer is …`.<assistant>"
    )
