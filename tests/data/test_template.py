"""Chat templates that do not end, or say too much, are ended; good ones are as transformers renders them."""

import time

import pytest

from lema_jax.data import template, tokenizer
from lema_jax.errors import UserError

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LONG = "{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}"
HUGE = "{{ 'a' * 10000000000 }}"
GOOD = (
    "{% for m in messages %}{{ bos_token }}[{{ m.role }}] {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


@pytest.fixture
def worker():
    made = template._Worker(1.0)
    yield made
    made.close()


def question(text: str) -> dict:
    return {"template": text, "messages": [{"role": "user", "content": "Hi ✓"}], "special": {"bos_token": "<s>"}}


def test_what_does_not_end_is_ended_and_the_next_one_is_rendered(worker):
    assert worker.render(question(GOOD)) == "<s>[user] Hi ✓A:"
    for text in (LOOPS, LONG, HUGE):
        began = time.monotonic()
        with pytest.raises(template.TemplateError, match=r"did not end within|MemoryError"):
            worker.render(question(text))
        assert time.monotonic() - began < 60
    assert worker.render(question(GOOD)) == "<s>[user] Hi ✓A:"


def test_what_fails_says_why(worker):
    with pytest.raises(template.TemplateError, match="no system message"):
        worker.render(question("{{ raise_exception('no system message') }}"))


def test_prompts_are_those_of_transformers():
    words = tokenizer.train_bpe(["one two"], 704)
    words.chat_template = GOOD
    message = [{"role": "user", "content": "one"}]
    whole = words.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert tokenizer.as_chat("one", words) in (whole, whole.removeprefix("<s>"))
    words.chat_template = "{{ raise_exception('not for this') }}"
    with pytest.raises(UserError, match="the chat template cannot be used: not for this"):
        tokenizer.as_chat("one", words)
