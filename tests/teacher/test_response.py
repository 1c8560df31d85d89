"""What responses of real servers mean. Shapes and wordings are those of public reports, in our own numbers."""

import email.utils
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lema_jax.teacher import response, wording
from lema_jax.teacher.response import Answer, Failure, Kind, Usage
from tests.teacher.reading import read
from tests.teacher.wire_server import completion

# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *[(whole, "stop") for whole in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE")],
        *[(cut, "length") for cut in ("length", "max_tokens", "MAX_TOKENS", "model_length")],
        *[(no, "content_filter") for no in ("content_filter", "SAFETY", "content_filter: RECITATION", "sensitive")],
        ("refusal", "refusal"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
    ],
)
def test_ends_that_are_known(reason, finish):
    answer = read(completion("half a text", reason))
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish) == ("half a text", finish)


@pytest.mark.parametrize(
    "reason",
    [None, "", "error", "insufficient_system_resource", "abort", "network_error", "unknown", "OTHER", 7, [], {}, True],
)
def test_any_other_end_is_not_a_whole_answer_and_may_be_billed(reason):
    failure = read(completion("The answer is 5.", reason))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.billed, failure.usage) == (Kind.TRANSIENT, True, (100, 20))
    assert "finish_reason" in failure.said


def test_an_end_that_is_not_told_is_not_whole():
    made = completion("The answer is 5.")
    del made["choices"][0]["finish_reason"]
    assert isinstance(read(made), Failure)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "said"}], "said"),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "said"}],
            "said",
        ),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "said"}], "said"),
        (["one ", "two"], "one two"),
        ([{"text": "no type"}], "no type"),
        ({"type": "text", "text": "alone"}, "alone"),
        ([{"type": "text", "text": None}, None, 4, {"type": "text", "text": "said"}], "said"),
        ("half a pair: \ud83d", "half a pair: \ufffd"),
        ([{"type": "text", "text": "\udc00"}], "\ufffd"),
        ("a whole pair: \U0001f600", "a whole pair: \U0001f600"),
        ("line\u2028separators\u0085\x00", "line\u2028separators\u0085\x00"),
    ],
)
def test_texts(content, text):
    answer = read(completion(content))
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish) == (text, "stop")
    answer.text.encode()


@pytest.mark.parametrize("content", [None, "", " \n", [], [{"type": "thinking", "thinking": "5"}], {}])
def test_an_answer_that_says_nothing_is_called_empty(content):
    thought = {"reasoning_content": "so it is 5", "reasoning": "so it is 5"}
    for message in ({}, thought):
        assert read(completion(content, **message)).finish == "empty"
        assert read(completion(content, "length", **message)).finish == "length"  # a thought that was cut off


@pytest.mark.parametrize(("content", "text"), [(None, "I will not."), ("", "I will not."), ("No.", "No.")])
def test_a_refusal_is_one_whatever_the_end_says(content, text):
    answer = read(completion(content, refusal="I will not."))
    assert (answer.text, answer.finish) == (text, "refusal")
    assert read(completion("4", refusal=None)).finish == read(completion("4", refusal="")).finish == "stop"


def test_tool_calls_without_a_text():
    assert read(completion(None, "tool_calls", tool_calls=[{"id": "x"}])).finish == "tool_calls"


def test_the_first_of_several_choices_counts():
    made = completion("first")
    made["choices"].append(completion("second", "length")["choices"][0])
    assert read(made).text == "first"


@pytest.mark.parametrize(
    ("usage", "read_as"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 3}, (7, 3)),
        ({"prompt_tokens": 7, "completion_tokens": None}, (7, None)),
        ({"prompt_tokens": 7}, (7, None)),
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 60}, (7, 53)),  # thinking is in the total alone
        ({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 9}, (7, 3)),
        ({"prompt_tokens": 7, "total_tokens": 9}, (7, 2)),
        ({"prompt_tokens": 7.0, "completion_tokens": 2.5}, (7, 3)),
        ({"prompt_tokens": -100_000_000, "completion_tokens": -1}, (None, None)),
        ({"prompt_tokens": "7", "completion_tokens": [3]}, (None, None)),
        ({"prompt_tokens": True, "completion_tokens": False}, (None, None)),
        ({"prompt_tokens": 10**18, "completion_tokens": 10**9}, (None, 10**9)),
        ({}, (None, None)),
        (None, (None, None)),
        ([1, 2], (None, None)),
        ("many", (None, None)),
    ],
)
def test_usage_is_a_finite_count_or_absent(usage, read_as):
    assert read(completion("4") | {"usage": usage}).usage == read_as


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 5000, "-" + "9" * 5000])
def test_numbers_that_are_none_are_absent(number):
    body = json.dumps(completion("4")).replace("100", number).replace("120", number)
    assert read(body.encode()).usage == (None, 20)


def test_a_byte_order_mark_and_bytes_that_are_no_text():
    assert read(b"\xef\xbb\xbf" + json.dumps(completion("4")).encode()).text == "4"
    assert read(json.dumps(completion("X")).encode().replace(b"X", b"\xff\xfe")).text == "\ufffd\ufffd"


@pytest.mark.parametrize("model", [None, 4, "\ud83d", ["m"], {}])
def test_who_answered(model):
    said = read(completion("4", model=model)).model
    assert said == ("\ufffd" if model == "\ud83d" else "")


# --- an error, or no answer at all, inside a 200 ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ({"choices": None, "error": {"code": 502, "message": "upstream died"}}, Kind.TRANSIENT, "502: upstream died"),
        ({"error": {"code": 429, "message": "slow down"}}, Kind.OVERLOADED, "429: slow down"),
        ({"error": {"code": "429", "message": "slow down"}}, Kind.OVERLOADED, "slow down"),
        ({"error": {"code": "rate_limit_exceeded", "message": "slow"}}, Kind.OVERLOADED, "slow"),
        ({"error": {"type": "overloaded_error", "message": "busy"}}, Kind.OVERLOADED, "busy"),
        ({"error": "something broke"}, Kind.TRANSIENT, "something broke"),
        ({"error": ["one", "two"]}, Kind.TRANSIENT, "one two"),
        ({"error": True, "message": "broke"}, Kind.TRANSIENT, "broke"),
        ([{"error": {"code": 400, "message": "bad"}}], Kind.REJECTED, "bad"),
        ({"errors": [{"message": "bad"}]}, Kind.TRANSIENT, "bad"),
        ({"object": "error", "message": "bad", "code": 404}, Kind.SETUP, "bad"),
        ({"type": "error", "error": {"type": "authentication_error", "message": "no key"}}, Kind.SETUP, "no key"),
        ({"error": {"code": "invalid_api_key", "message": "no"}}, Kind.SETUP, "no"),
        ({"error": {"code": "insufficient_quota", "message": "pay"}}, Kind.SETUP, "pay"),
        ({"error": {"code": 400, "message": "Content Exists Risk"}}, Kind.PERMANENT, "Risk"),
        ({"error": {"message": "\ud83d lone"}}, Kind.TRANSIENT, "\ufffd lone"),
        (
            {"error": {"message": "P", "code": 502, "metadata": {"raw": "the provider's words"}}},
            Kind.TRANSIENT,
            "words",
        ),
        ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, Kind.SETUP, "insufficient"),
        (completion("half", "error") | {"error": {"code": 500, "message": "died"}}, Kind.TRANSIENT, "died"),
    ],
)
def test_an_error_inside_a_200_is_judged_by_its_code_and_words(body, kind, said):
    failure = read(body)
    assert isinstance(failure, Failure)
    assert failure.kind is kind
    assert said in failure.said
    failure.said.encode()


def test_an_error_in_the_choice():
    made = completion("half", "error")
    made["choices"][0]["error"] = {"code": 503, "message": "the provider went away"}
    failure = read(made)
    assert (failure.kind, failure.billed, failure.usage) == (Kind.OVERLOADED, True, (100, 20))


@pytest.mark.parametrize("error", [None, "", {}, [], False])
def test_an_error_that_says_nothing_is_none(error):
    assert read(completion("4") | {"error": error}).text == "4"


@pytest.mark.parametrize(
    "body",
    [
        {}, [], 4, "text", None, {"object": "something else"}, {"choices": []}, {"choices": None}, {"choices": {}},
        {"choices": [None]}, {"choices": ["text"]}, {"choices": [{"text": "old protocol", "finish_reason": "stop"}]},
        {"choices": [{"message": None, "finish_reason": "stop"}]}, {"choices": [{"delta": {"content": "4"}}]},
        completion(4), completion(True),
    ],
)  # fmt: skip
def test_no_completion_is_tried_again_and_may_be_billed(body):
    failure = read(body)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.billed) == (Kind.TRANSIENT, True)


@pytest.mark.parametrize(
    "why",
    [
        {"prompt_filter_results": [{"content_filter_results": {"violence": {"filtered": True}}}]},
        {"promptFeedback": {"blockReason": "SAFETY"}},
    ],
)
def test_no_choices_because_the_prompt_is_filtered(why):
    failure = read({"choices": []} | why)
    assert (failure.kind, failure.finish) == (Kind.PERMANENT, "content_filter")


@pytest.mark.parametrize(
    ("body", "kind", "billed"),
    [
        (b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>", Kind.NO_API, False),
        (b"  \n<html>", Kind.NO_API, False),
        (b"Ollama is running", Kind.TRANSIENT, True),
        (b" \n\n.", Kind.TRANSIENT, True),
        (b'data: {"choices": []}\n\ndata: [DONE]\n\n', Kind.TRANSIENT, True),
        (b"", Kind.TRANSIENT, True),
        (b"\n\n\n", Kind.TRANSIENT, True),
        (b'{"choices": [{"mess', Kind.TRANSIENT, True),
        (b"[" * 200_000, Kind.TRANSIENT, True),
        (b'{"a":' * 100_000, Kind.TRANSIENT, True),
        (b"\x1f\x8b nonsense", Kind.TRANSIENT, True),
        (b'{"choices": [], "choices": [1]}', Kind.TRANSIENT, True),
        (b'{"error": {"code": 500}, "error": null}', Kind.TRANSIENT, True),
    ],
)
def test_a_200_that_is_no_json(body, kind, billed):
    failure = response.read(200, {}, body)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.billed) == (kind, billed)
    assert "Expecting value" not in failure.said or body.startswith(b"{")


def test_what_is_said_twice_alike_or_of_no_use_does_not_harm():
    text = json.dumps(completion("4"))
    assert read(text.replace('"index": 0', '"index": 0, "index": 1, "finish_reason": "stop"').encode()).text == "4"


# --- any input --------------------------------------------------------------------------------------------------------


KEYS = ["choices", "message", "content", "usage", "finish_reason", "prompt_tokens", "model", "error", "code", "detail"]


leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["stop", "429", "\ud800"])
)


values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner), max_leaves=9
)


@given(values, st.sampled_from([200, 201, 302, 400, 429, 500]))
def test_any_json_is_an_answer_or_a_named_failure(value, status):
    judged = read(value, status)
    if isinstance(judged, Answer):
        assert status == 200
        assert not value.get("error")
        assert isinstance(value["choices"][0]["finish_reason"], str)
        (judged.text + judged.model).encode()
        assert judged.finish
    else:
        assert judged.said
        judged.said.encode()
        assert judged.said.isprintable()
    for count in judged.usage:
        assert count is None or 0 <= count <= 10**9


@given(st.binary(), st.sampled_from([200, 400, 503]))
def test_any_bytes_are_an_answer_or_a_named_failure(body, status):
    judged = response.read(status, {}, body)
    assert isinstance(judged, Failure)
    assert judged.said.isprintable()


@given(st.text(max_size=300))
def test_any_words_are_read(said):
    assert wording.hinted_wait(said) is None or wording.hinted_wait(said) >= 0
    wording.own_failure(400, said, wording.is_passing(said))
    wording.parameters_not_taken(said)
    assert wording.is_quota(402, said, None)


def test_long_words_take_no_long_time():
    started = time.process_time()
    for said in (
        "a" * 200_000,
        "<" * 200_000,
        "<a " * 60_000,
        "<script " * 20_000,
        "<!--" * 40_000,
        "prompt " * 30_000,
        "wait " * 40_000,
        "tokens " * 30_000,
    ):
        read({"error": {"message": said}}, 400)
        read(said.encode(), 400)
        read({"error": [said] * 50}, 400)
    assert time.process_time() - started < 5


# --- Retry-After ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, 1e9),
        ({"retry-after": "Mon, 99 Foo 9999 99:99:99 GMT"}, None),
        ({"retry-after": email.utils.formatdate(0, usegmt=True)}, 0.0),
        ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "7", "retry-after-ms": "soon"}, 7),
    ],
)
def test_retry_after(headers, seconds):
    assert response.retry_after(headers) == seconds


def test_retry_after_a_date():
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < response.retry_after({"retry-after": soon}) < 31


def test_usage_that_is_unknown_is_told_apart_from_none():
    assert Usage() == (None, None) != Usage(0, 0)
