"""What error statuses of real servers mean. Shapes and wordings are those of public reports, in our own numbers."""

import pytest

from lema_jax.teacher import response
from lema_jax.teacher.response import Failure, Kind
from tests.teacher.reading import read


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


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (503, "Moderation service is temporarily unavailable. Please retry.", Kind.OVERLOADED),
        (400, "Moderation service is temporarily unavailable. Please retry.", Kind.TRANSIENT),
        (403, "The content filter timed out. Please try again.", Kind.TRANSIENT),
        (500, "Failed to call moderation endpoint: timeout", Kind.TRANSIENT),
        (500, "content_filter: internal error", Kind.TRANSIENT),
        (503, "The model is overloaded. Please reduce your prompt rate", Kind.OVERLOADED),
        (400, "Please reduce your prompt rate", Kind.REJECTED),
        (503, "The number of queued tokens exceeds the limit; retry in 3s", Kind.OVERLOADED),
        (500, "The number of queued tokens exceeds the limit; retry in 3s", Kind.TRANSIENT),
        (403, "Your account was flagged for unusual activity and is suspended", Kind.SETUP),
        (400, "Organization suspended by our content moderation", Kind.SETUP),
        (400, "Triggered our content management policy. Please modify your prompt and retry.", Kind.PERMANENT),
    ],
)
def test_what_passes_or_is_about_the_account_is_no_failure_of_the_request(status, said, kind):
    assert read({"error": {"message": said}}, status).kind is kind
    if kind is Kind.PERMANENT:
        assert read({"error": {"message": said}}, status, retry_after="5").kind is Kind.TRANSIENT


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
