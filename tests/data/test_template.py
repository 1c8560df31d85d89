"""Chat templates that do not end, or say too much, are ended; good ones are as transformers renders them."""

import re
import time

import pytest

from lema_jax.data import encode, template, tokenizer
from lema_jax.errors import UserError
from tests.tokenizer_files import TEMPLATES

LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
LONG = "{% for i in range(9999) %}{{ 'a' * 9999 }}{% endfor %}"
HUGE = "{{ 'a' * 10000000000 }}"
GOOD = (
    "{% for m in messages %}{{ bos_token }}[{{ m.role }}] {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


def rendered(text: str) -> str:
    return template.render(text, [{"role": "user", "content": "Hi ✓"}], {"bos_token": "<s>"})


@pytest.mark.slow
def test_what_does_not_end_is_ended_and_the_next_one_is_rendered(monkeypatch):
    monkeypatch.setattr(template, "_SECONDS", 1.0)
    assert rendered(GOOD) == "<s>[user] Hi ✓A:"
    for text in (LOOPS, LONG, HUGE):
        began = time.monotonic()
        with pytest.raises(template.TemplateError, match=r"did not end within|MemoryError"):
            rendered(text)
        assert time.monotonic() - began < 60
    assert rendered(GOOD) == "<s>[user] Hi ✓A:"


def test_what_fails_says_why():
    with pytest.raises(template.TemplateError, match="no system message"):
        rendered("{{ raise_exception('no system message') }}")


def test_prompts_are_those_of_transformers():
    words = tokenizer.train_bpe(["one two"], 704)
    words.chat_template = GOOD
    message = [{"role": "user", "content": "one"}]
    whole = words.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert tokenizer.as_chat("one", words) in (whole, whole.removeprefix("<s>"))
    words.chat_template = "{{ raise_exception('not for this') }}"
    with pytest.raises(UserError, match="the chat template cannot be used: not for this"):
        tokenizer.as_chat("one", words)


# What templates use besides messages, by transformers' documentation of what they may.
SHAPES = {
    **TEMPLATES,
    "all that is defined": (
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token is defined }}{{ tools is none }}"
        "{{ documents is none }}{{ raise_exception is defined }}{{ strftime_now is defined }}"
        "{{ date_string is defined }}{{ enable_thinking }}"
    ),
    "a date": "{{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, week %W, %B %-d') }}{{ messages[0].content }}",
    "loop controls": (
        "{% for m in messages %}{% if m.role != 'user' %}{% continue %}{% endif %}"
        "{{ m.content }}{% break %}{% endfor %}"
    ),
    "namespace": "{% set n = namespace(k=0) %}{% for m in messages %}{% set n.k = n.k + 1 %}{% endfor %}{{ n.k }}",
    "white space": "  {%- if true %}\n  a\n  {% endif %}\n{{ dict(a=1) | tojson(indent=2) }}\n",
    "an empty prompt": "{% if false %}x{% endif %}",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("named", [False, True], ids=["alone", "named"])
def test_any_shape_of_template_is_rendered_as_by_transformers(shape, named, clock):
    clock("today")
    words = tokenizer.train_bpe(["one two"], 704)
    words.chat_template = {"tool_use": "tools", "default": shape} if named else shape
    for message in ("one  ½\n<s> two", ""):
        asked = [{"role": "user", "content": message}]
        text = tokenizer.as_chat(message, words)
        assert text == words.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids = words.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        assert encode.prompt_ids(text, words, rendered=True) == ids


def test_a_date_is_the_same_on_every_day_and_can_be_given(clock, capfd):
    words = tokenizer.train_bpe(["one two"], 704)
    words.chat_template = "{{ strftime_now('%Y-%m-%d %H:%M:%S') }}{{ messages[0].content }}"
    clock("")
    first = tokenizer.as_chat("", words)
    assert first == "2024-07-26 12:00:00"
    told = re.findall(r"can write the date, (.*) here; .* SOURCE_DATE_EPOCH", capfd.readouterr().err)
    assert told == ["2024-07-26"]
    clock("86400000")
    assert tokenizer.as_chat("", words) == "1972-09-27 00:00:00"
    for wrong in ("yesterday", "-1", "1e9", "9" * 30, "9" * 5000, "²"):
        clock(wrong)
        with pytest.raises(UserError, match="SOURCE_DATE_EPOCH="):
            tokenizer.as_chat("", words)


def test_a_template_without_a_date_has_no_note():
    assert template.note(GOOD) == ""


def test_many_prompts_cost_little_each():
    words = tokenizer.train_bpe(["one two"], 704)
    words.chat_template = TEMPLATES["headers"]
    tokenizer.as_chat("", words)
    began = time.process_time()
    for number in range(500):
        tokenizer.as_chat(f"How many are {number} and one?", words)
    assert time.process_time() - began < 2.5  # of this process: nothing is loaded or started anew for a prompt
