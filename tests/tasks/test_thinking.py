"""A thought is no answer: it is taken away whole, whichever tags it wears, and a cut one leaves nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.tasks.thinking import spoken

TAGS = [
    ("<think>", "</think>"),
    ("<Thinking>", "</Thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|im_start|>think\n", "<|im_start|>answer\n"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_only_what_follows_the_thought_is_spoken(opening: str, closing: str) -> None:
    said = "The answer is 4."
    assert spoken(f"{opening}Is it 5?{closing}\n\n{said}") == (said, True)
    assert spoken(f"Is it 5?{closing}\n\n{said}") == (said, True)
    assert spoken(f"{opening}Is it 5? The answer is 5.") == ("", False)


def test_names_of_tags_that_a_decoder_left_out_are_read_at_the_beginning() -> None:
    assert spoken("analysisIs it 5?assistantfinalThe answer is 4.") == ("The answer is 4.", True)
    assert spoken("analysis of the story: 5") == ("analysis of the story: 5", True)


@given(st.text(alphabet="ab 5.\n", max_size=40), st.text(alphabet="ab 4.\n", max_size=40), st.sampled_from(TAGS))
def test_nothing_of_a_thought_is_left(thought: str, said: str, tags: tuple[str, str]) -> None:
    assert spoken(f"{tags[0]}{thought}{tags[1]}{said}") == (said.lstrip(), True)
    assert spoken(said) == (said, True)
