"""The cause of an endpoint's error, from its text and codes: servers share the protocol, but not its errors.

The wordings are those of OpenAI, Azure, Anthropic, Gemini, DeepSeek, DashScope, Together, OpenRouter, LiteLLM, vLLM,
llama.cpp and Text Generation Inference. What matches none of them is judged by its status alone.
"""

import re
from collections.abc import Mapping
from typing import Any

_QUOTA_CODES = re.compile(
    r"insufficient[_ ](?:quota|balance|credits?|funds)|insufficient account balance|billing_hard_limit"
    r"|credit[_ ]balance[_ ](?:exhausted|is too low|too low)|out of credits|no credits|payment required|余额不足"
    r"|budget has been exceeded|exceeded ?budget|access_terminated",
    re.IGNORECASE,
)
_QUOTA_WORDS = re.compile(
    r"exceeded your current quota|quota (?:has been |was |is )?(?:exceeded|exhausted|reached)|quota_exceeded"
    r"|(?:monthly|daily|spend(?:ing)?) (?:\w+ )?limit",
    re.IGNORECASE,
)
_ACCOUNT = re.compile(
    r"invalid api[ _]key|api[ _]key (?:is )?(?:not valid|invalid)|api_key_invalid|authentication|unauthori[sz]ed"
    r"|(?:account|organi[sz]ation) (?:is not active|has been)|billing_not_active"
    r"|(?:account|organi[sz]ation) (?:(?:is|was) (?:\w+ )?)?(?:deactivated|flagged|suspended)",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size|limit)|exceed_context|max_(?:model_len|seq_len|total_tokens|input_length)"
    r"|max(?:imum)? (?:model|sequence|input|prompt) (?:length|tokens)|string_above_max_length|range of input length"
    r"|(?:prompt|input|messages?)\b.{0,40}?(?:too (?:long|large)|longer than)|input token count"
    r"|inputs[`'\"]? tokens \+|must have less than \d+ tokens"
    r"|reduce (?:the|your) (?:length|prompt|input|size)\b(?! rate)"
    r"|tokens?\b.{0,30}exceeds? (?:the )?(?:\w+ )?(?:max|limit|model)",
    re.IGNORECASE | re.DOTALL,
)
_LARGER_THAN_ITS_LIMIT = re.compile(r"request (?:is )?too large", re.IGNORECASE)  # than all tokens of a minute
_FILTERED = re.compile(
    r"content[_ -]?(?:filter|policy|management|moderation)|contentfilter|contentpolicy|responsible ?ai"
    r"|content exists risk|data_?inspection|inappropriate content|\bmoderation|\bflagged|prohibited_content|usage polic"
    r"|sensitive (?:content|information|words?)|safety (?:system|filters?|polic|reasons?|settings)|敏感|违规",
    re.IGNORECASE,
)
_PASSING = re.compile(  # but not "modify your prompt and retry", as Azure's filter has it
    r"temporar|unavailable|overloaded|\btime[d -]*outs?\b|please (?:retry|try again)(?! with)"
    r"|(?:retry|again) (?:later|shortly|soon)",
    re.IGNORECASE,
)
_STARTING = re.compile(r"\b(?:load(?:ing|ed)|starting|warming)\b|not (?:yet )?ready|initiali[sz]ing", re.IGNORECASE)
_NOT_TAKEN = re.compile(
    r"unsupported|not (?:be )?support|n['’]t support|unrecogni[sz]ed|unknown (?:param|arg|field|key)|not permitted"
    r"|extra_forbidden|extra (?:inputs|fields)|unexpected (?:keyword|field|arg|param|property)|not allowed"
    r"|only the default|deprecated|can ?not both|only .{1,20} (?:is|are) allowed|additional propert"
    r"|not a valid (?:param|arg)",
    re.IGNORECASE,
)
_PARAMETERS = re.compile(r"(?<![\w.])(?:max_completion_tokens|max_tokens|temperature|top_p|seed)(?!\w)")
_HINT = re.compile(
    r"(?:try again|retry|wait)(?: (?:in|after|for|at least))* (?:(\d+) ?h(?:ours?)?)?"
    r" ?(?:(\d+) ?m(?:in(?:utes?)?)?(?!s))? ?(?:(\d+(?:\.\d+)?) ?(ms|s\b|sec))?",
    re.IGNORECASE,
)
_STATUS_BY_WORD = {  # of an error inside a 200 whose code is a word
    "rate_limit": 429, "rate limit": 429, "too many requests": 429, "overloaded": 529, "unavailable": 503,
    "authentication": 401, "api_key": 401, "unauthorized": 401, "permission": 403, "not_found": 404,
    "invalid_request": 400, "bad request": 400, "content_filter": 400, "content_policy": 400, "data_inspection": 400,
}  # fmt: skip
_REFUSED = (400, 403, 413, 422)  # statuses of a request that is at fault; llama.cpp's is 500 for one that is too long
_ECHOED = frozenset({"input", "body", "prompt", "messages", "url", "request_id", "documentation_url", "headers"})
_MOST = 4000  # characters of an error that are read


def error_in(value: Any) -> Any:
    """The error in a body (decoded JSON), in any of the known layouts; None where there is none."""
    if isinstance(value, list):
        value = next((item for item in value if isinstance(item, dict)), None)
    if not isinstance(value, dict):
        return None
    if error := value.get("error") or value.get("errors"):
        return error if isinstance(error, str | dict | list) else value
    base = value.get("base_resp")  # MiniMax's
    if isinstance(base, dict) and base.get("status_code"):
        return base
    return value if value.get("object") == "error" or value.get("type") == "error" else None


def words(error: Any) -> str:
    """All strings in an error, its message first, without what servers repeat of the request."""
    found: list[str] = []
    _gather(error, found, depth=0)
    return " ".join(dict.fromkeys(found))[:_MOST]


def _gather(error: Any, found: list[str], depth: int) -> None:
    if depth > 6 or len(found) > 50:
        return
    if isinstance(error, str):
        found.append(error[:_MOST])
    elif isinstance(error, Mapping):
        first = ("message", "msg", "detail", "error")
        for key in sorted(error, key=lambda key: first.index(key) if key in first else len(first)):
            if key not in _ECHOED:
                _gather(error[key], found, depth + 1)
    elif isinstance(error, list):
        for item in error:
            _gather(item, found, depth + 1)


def message(error: Any) -> str:
    """The message of an error; all its strings where it has none."""
    if isinstance(error, Mapping):
        for key in ("message", "msg", "detail", "error"):
            if isinstance(said := error.get(key), str) and said.strip():
                raw = error.get("metadata")  # what the provider behind a router said
                return f"{said} {words(raw)}".strip() if isinstance(raw, Mapping) else said
            if said and (inner := message(said)):
                return inner
    return words(error)


def status_in(error: Any) -> int:
    """The HTTP status that an error inside a 200 stands for; 500 where it names none."""
    if isinstance(error, Mapping):
        for key in ("code", "status", "status_code", "http_code"):
            code = error.get(key)
            if isinstance(code, str) and code.strip().isdecimal() and len(code) < 9:
                code = int(code)
            if isinstance(code, int) and 300 <= code < 600:
                return code
    said = words(error).lower()
    return next((status for word, status in _STATUS_BY_WORD.items() if word in said), 500)


def hinted_wait(said: str) -> float | None:
    """The seconds after which an error says to try again, such as "Please retry in 1m7.5s"; None where it does not."""
    if not (hint := _HINT.search(said)) or not any(hint.group(1, 2, 3)):
        return None
    hours, minutes, rest, unit = hint.groups()
    seconds = float((rest or "0")[:12]) / (1000 if (unit or "").lower() == "ms" else 1)
    return int((hours or "0")[:9]) * 3600 + int((minutes or "0")[:9]) * 60 + seconds


def is_quota(status: int, said: str, after: float | None) -> bool:
    """Whether the account's quota is used up; a rate limit, which names a wait, is no quota."""
    return status == 402 or bool(_QUOTA_CODES.search(said)) or (after is None and bool(_QUOTA_WORDS.search(said)))


def is_account(status: int, said: str) -> bool:
    """Whether the account or its key is refused, whatever the status below 500."""
    return status < 500 and bool(_ACCOUNT.search(said))


def is_passing(said: str) -> bool:
    """Whether an error says that it will pass."""
    return bool(_PASSING.search(said))


def own_failure(status: int, said: str, passing: bool) -> str:
    """Why this very request will never be answered, "too_long" or "content_filter"; "" for any other error.

    Args:
      passing: whether the error names a wait or says that it will pass; more than all tokens of a minute never does.
    """
    if status in (*_REFUSED, 429) and _LARGER_THAN_ITS_LIMIT.search(said):
        return "too_long"
    if passing or status not in (*_REFUSED, 500):
        return ""
    if status == 413 or _TOO_LONG.search(said):
        return "too_long"
    return "content_filter" if status != 500 and _FILTERED.search(said) else ""  # a 500: the filter itself failed


def is_starting(said: str) -> bool:
    """Whether a server says that it is not up yet, as llama.cpp does while it loads its model."""
    return bool(_STARTING.search(said))


def parameters_not_taken(said: str) -> tuple[str, ...]:
    """The parameters that an error says the endpoint does not take, in its order; empty for any other error.

    Of two that exclude each other the later one comes first: it is the one to leave out.
    """
    if not _NOT_TAKEN.search(said):
        return ()
    named = tuple(dict.fromkeys(_PARAMETERS.findall(said)))
    return named[::-1] if re.search(r"\bboth\b", said) else named
