"""What responses of real servers mean. Shapes and wordings are those of public reports, in our own numbers."""

import email.utils
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_server import completion

from lema_jax.teacher import response, wording
from lema_jax.teacher.response import Answer, Failure, Kind, Usage


def read(value, status: int = 200, **headers) -> Answer | Failure:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return response.read(status, {name.replace("_", "-"): said for name, said in headers.items()}, body)


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


# --- error statuses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "billed"),
    [
        *[(status, Kind.SETUP, False) for status in (301, 302, 307, 308, 401, 402, 403, 404, 405, 501)],
        *[(status, Kind.REJECTED, False) for status in (400, 406, 415, 418, 422, 451)],
        *[(status, Kind.OVERLOADED, False) for status in (429, 503, 529)],
        *[(status, Kind.TRANSIENT, False) for status in (409, 425, 500, 502, 505, 520, 521, 522, 523, 525, 526, 599)],
        *[(status, Kind.TRANSIENT, True) for status in (408, 504, 524, 201, 202, 204, 206)],
        (413, Kind.PERMANENT, False),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", b"<html><h1>no</h1></html>", b'{"error": null}', b'{"detail": "no"}'])
def test_statuses(status, kind, billed, body):
    failure = response.read(status, {}, body)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.billed) == (kind, billed)


def test_a_redirect_names_where_it_leads():
    assert "https://elsewhere/v1" in read(b"", 308, location="https://elsewhere/v1").said


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "M of theirs"}}, {"error": "M of theirs"}, [{"error": {"message": "M of theirs"}}],
        {"detail": "M of theirs"}, {"detail": {"error": {"message": "M of theirs"}}},
        {"detail": [{"loc": ["body", "x"], "msg": "M of theirs", "input": "secret prompt"}]},
        {"object": "error", "message": "M of theirs", "type": "BadRequestError"}, {"message": "M of theirs"},
        {"type": "error", "error": {"type": "invalid_request_error", "message": "M of theirs"}},
        {"error": {"error": {"message": "M of theirs"}}}, b"<html><style>x</style><h1>M of</h1> theirs</html>",
        b"M of\x1b[31m theirs",
    ],
)  # fmt: skip
def test_the_endpoints_own_words_are_found(body):
    said = read(body, 400).said
    assert "M of" in said
    assert "theirs" in said
    assert "secret prompt" not in said
    assert "\x1b" not in said
    assert "<" not in said


TOO_LONG = [
    "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens.",
    "the request exceeds the available context size. try increasing the context size or enable context shift",
    "request (5000 tokens) exceeds the available context size (4096 tokens)",
    "prompt is too long: 207791 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000",
    "The input token count (337807) exceeds the maximum number of tokens allowed (65536).",
    "length of prompt_tokens (163280) must be less than max_seq_len (32768).",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4097. Given: 5000 `inputs` tokens",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
    "Range of input length should be [1, 30720]",
    "Please reduce the length of the messages or completion.",
    "Input is too long for requested model.",
    "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
    "Please reduce your prompt; or completion length.",
    "The prompt has 9000 tokens which is longer than n_ctx 4096",
]


@pytest.mark.parametrize("said", TOO_LONG)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_what_is_too_long_is_the_requests_own_failure(said, status):
    failure = read({"error": {"message": said, "type": "invalid_request_error", "code": None}}, status)
    assert (failure.kind, failure.finish) == (Kind.PERMANENT, "too_long")


@pytest.mark.parametrize("code", ["context_length_exceeded", "exceed_context_size_error", "string_above_max_length"])
def test_what_is_too_long_by_its_code(code):
    for error in ({"code": code}, {"type": code, "code": 400}, {"message": "no", "code": None, "type": code}):
        assert read({"error": error}, 400).finish == "too_long"


@pytest.mark.parametrize("status", [413, 429])
def test_more_than_all_tokens_of_a_minute_is_too_long(status):
    said = "Request too large for m on tokens per minute (TPM): Limit 6000, Requested 8000"
    assert read({"error": {"message": said}}, status).finish == "too_long"


FILTERED = [
    {"message": "Content Exists Risk", "type": "invalid_request_error"},
    {"message": "no", "code": "content_filter"},
    {"message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."},
    {"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}},
    {"message": "Your request was rejected as a result of our safety system.", "code": "content_policy_violation"},
    {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."},
    {"message": "Your input was flagged", "code": 403, "metadata": {"reasons": ["violence"]}},
    {"message": "Invalid prompt: your prompt was flagged as potentially violating our usage policy."},
    {"message": "litellm.ContentPolicyViolationError: AzureException"},
    {"message": "输入内容包含敏感信息"},
]


@pytest.mark.parametrize("error", FILTERED)
@pytest.mark.parametrize("status", [400, 403])
def test_what_is_filtered_is_the_requests_own_failure(error, status):
    failure = read({"error": error}, status)
    assert (failure.kind, failure.finish) == (Kind.PERMANENT, "content_filter")


@pytest.mark.parametrize("status", [401, 404])
def test_a_set_up_is_never_the_requests_own_failure(status):
    for error in (*FILTERED, *({"message": said} for said in TOO_LONG)):
        assert read({"error": error}, status).kind is Kind.SETUP


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": None}),
        (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}),
        (429, {"message": "You have no credits remaining", "code": "credit_balance_exhausted"}),
        (400, {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"}),
        (400, {"message": "Your credit balance is too low to access the API."}),
        (402, {"message": "Insufficient Balance"}),
        (402, {"message": "This request requires more credits, or fewer max_tokens."}),
        (402, {}),
        (403, {"message": "Insufficient account balance"}),
        (429, [{"error": {"type": "insufficient_quota"}}]),
        (429, "You exceeded your current quota, please check your plan and billing details."),
        (400, {"message": "Budget has been exceeded! Current cost: 10.1, Max budget: 10.0"}),
    ],
)
def test_an_account_that_has_nothing_left_ends_at_once(status, error):
    body = error if isinstance(error, list) else {"error": error}
    assert read(body, status).kind is Kind.SETUP


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "Invalid API Key"),
        (400, "API key not valid. Please pass a valid API key."),
        (429, "Account is not active, please check your billing details on our website."),
        (400, "This organization has been disabled."),
    ],
)
def test_an_account_that_is_not_let_in_ends_the_run_whatever_the_status(status, said):
    assert read({"error": {"message": said}}, status).kind is Kind.SETUP
    assert read({"error": {"message": said}}, 503).kind is Kind.OVERLOADED


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("You exceeded your current quota. Quota exceeded for metric: requests. Please retry in 32.5s.", 32.5),
        ("Rate limit reached for m on tokens per day (TPD): Limit 9, Used 9. Please try again in 7m12.5s.", 432.5),
        ("Requests have exceeded the token rate limit of your pricing tier. Please retry after 8 seconds.", 8),
        ("Rate limit reached. Please try again in 6ms.", 0.006),
        ("Too many tokens, please wait before trying again.", None),
        ("Rate limit reached, try again later", None),
        ("wait 5 minutes", 300),
    ],
)
def test_a_limit_a_minute_is_no_empty_account(said, seconds):
    failure = read({"error": {"message": said}}, 429)
    assert failure.kind is Kind.OVERLOADED
    assert failure.after == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", ["86400", "1e9", "901"])
def test_who_asks_to_wait_for_hours_is_out_of_service(status, wait):
    failure = read(b"", status, retry_after=wait)
    assert failure.kind is Kind.SETUP
    assert "asks to wait" in failure.said


@pytest.mark.parametrize(
    ("error", "first"),
    [
        ({"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'"
          " instead.", "param": "max_tokens", "code": "unsupported_parameter"}, "max_tokens"),
        ({"message": "max_tokens is not supported, use max_completion_tokens"}, "max_tokens"),
        ({"message": "Unsupported value: 'temperature' does not support 0.95 with this model. Only the default (1)"
          " value is supported."}, "temperature"),
        ({"message": "litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0.84."}, "temperature"),
        ({"message": "`temperature` and `top_p` cannot both be specified for this model."}, "top_p"),
        ({"message": "temperature and top_p cannot both be specified for this model. Please use only one."}, "top_p"),
        ({"message": "invalid top_p: only 0.95 is allowed for this model"}, "top_p"),
        ({"message": "Unrecognized request argument supplied: seed"}, "seed"),
        ([{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}], "seed"),
        ({"message": "Unknown parameter: 'max_completion_tokens'."}, "max_completion_tokens"),
    ],
)  # fmt: skip
def test_a_parameter_that_is_not_taken_is_named(error, first):
    for body in ({"error": error}, {"detail": error}):
        failure = read(body, 400)
        assert failure.kind is Kind.PARAMETER
        assert failure.parameters[0] == first


@pytest.mark.parametrize(
    "said",
    [
        "temperature must be at most 2",
        "max_tokens is too large: 100000. This model supports at most 4096 completion tokens",
        "top_p: Input should be less than or equal to 1",
        "the seed is not a number",
        "model is not supported",
    ],
)
def test_a_value_that_is_wrong_is_no_parameter_to_leave_out(said):
    assert read({"error": {"message": said}}, 400).kind is Kind.REJECTED


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
    wording.own_failure(400, said)
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
