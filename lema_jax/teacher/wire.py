"""The way to an endpoint: its address and key, what it takes in a request, and how one travels there and back."""

import asyncio
import dataclasses
import os
import re
import socket
import ssl
import sys
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from lema_jax import storage
from lema_jax.errors import UserError
from lema_jax.teacher import response
from lema_jax.teacher.response import Failure, Kind

if TYPE_CHECKING:  # imported where it is used: a run without an endpoint starts without it
    from openai import AsyncOpenAI

_OPENAI = "https://api.openai.com/v1"
_LONGEST_CONNECT = 10.0  # seconds until an address that does not answer at all is given up
LARGEST = storage.LONGEST_LINE // 6 - 2**10  # bytes of an answer, which its row holds: JSON may take 6 for one
_SHORT_KEY = 8  # characters; a shorter key may be part of any word
_TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
# The HTTP library's errors before anything was sent. By name: which library it is changes with the client's version.
_NOTHING_SENT = {
    "ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol", "LocalProtocolError",
    "InvalidURL",
}  # fmt: skip


def address(base_url: str | None) -> str:
    """The URL of an endpoint, from the flag or the environment, OpenAI's own where neither names one.

    Raises:
      UserError: it is no URL that a request could be sent to.
    """
    name = "--base_url" if base_url is not None else "OPENAI_BASE_URL"
    given = base_url if base_url is not None else os.environ.get("OPENAI_BASE_URL", _OPENAI)
    url = given.strip().rstrip("/")
    example = "such as http://127.0.0.1:8000/v1"
    if "@" in url:  # wherever: a password may hold any character
        raise UserError(f"{name} holds an @, as a user or a password does; leave it out: a key is OPENAI_API_KEY")
    shown = re.sub(r"[?#].*", "?…", given, flags=re.DOTALL)  # a query may hold a key
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{name}={shown}: {error}; give a URL {example}") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise UserError(f"{name}={shown}: no http:// or https:// at its start; give a URL {example}")
    if not host or not re.fullmatch(r"[\w.:%-]+", host) or not url.isprintable() or " " in url:
        raise UserError(f"{name}={shown}: no host can be read in it; give a URL {example}")
    if parts.query or parts.fragment:
        raise UserError(
            f"{name} ends in ?… or #…; leave that out: give the URL that /chat/completions follows, {example}"
        )
    if parts.path.endswith("/completions"):
        raise UserError(f"{name}={shown}: leave /chat/completions off; it is added to the URL")
    return url


def key_from_environment() -> str | None:
    """The key of the endpoint, which is never printed; None where there is none.

    Raises:
      UserError: it cannot travel in a header.
    """
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(
            "OPENAI_API_KEY holds characters that no key has (a space, a line break, an accent); set it again"
        )
    return key or None


class Dialect:
    """Which parameters an endpoint takes, as far as it is known: what it refuses is learnt from its answer."""

    def __init__(self, url: str):
        self._url = url
        self._is_openai = urllib.parse.urlsplit(url).hostname == "api.openai.com"
        self._refused: set[str] = {"max_tokens"} if self._is_openai else set()

    def body(self, body: dict[str, Any]) -> dict[str, Any]:
        """The body as the endpoint takes it.

        OpenAI's own takes only `max_completion_tokens` for its newer models, and for those that reason no word about
        temperature and top_p, though 1 is what they have. Other endpoints' defaults may differ, so they are told.
        """
        limit = next((name for name in _TOKEN_LIMITS if name not in self._refused), _TOKEN_LIMITS[0])
        taken = {limit if name in _TOKEN_LIMITS else name: value for name, value in body.items()}
        usual = lambda name, value: self._is_openai and name in ("temperature", "top_p") and value == 1
        return {name: value for name, value in taken.items() if name not in self._refused and not usual(name, value)}

    def learn(self, parameters: Iterable[str], sent: Mapping[str, Any]) -> bool:
        """Notes that the endpoint does not take one of `parameters`, and says so once; False where `sent` had none.

        A limit of the tokens has two names: when one is refused the other is tried, but never none.
        """
        for name in parameters:
            if name not in sent or (name in _TOKEN_LIMITS and self._refused.issuperset(set(_TOKEN_LIMITS) - {name})):
                continue
            if name not in self._refused:
                self._refused.add(name)
                other = next((limit for limit in _TOKEN_LIMITS if limit != name), "")
                instead = f"{other} is sent instead" if name in _TOKEN_LIMITS else "its own default holds"
                print(f"{self._url} does not take {name}: {instead}", file=sys.stderr)
            return True
        return False


@dataclasses.dataclass(frozen=True)
class Came:
    """A response, as it came."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Broken(Exception):
    """No response came. Its text says what happened instead."""

    def __init__(self, reason: str, *, sent: bool, late: bool = False, hopeless: bool = False):
        super().__init__(reason)
        self.sent = sent  # the endpoint may have got the request, and may bill it
        self.late = late  # no answer within the limit
        self.hopeless = hopeless  # no try will do better


class Wire:
    """An endpoint that can be asked. Whatever it says is shown by way of `clean`, so that no key is."""

    def __init__(self, base_url: str | None, timeout_s: float):
        import openai

        self.url, self.timeout_s = address(base_url), timeout_s
        self._key = key_from_environment()
        if not self._key and urllib.parse.urlsplit(self.url).hostname == "api.openai.com":
            raise UserError("no key: set OPENAI_API_KEY, or give --base_url of an endpoint that needs none")
        connect = min(_LONGEST_CONNECT, timeout_s)
        try:  # a redirect may lead anywhere: it is shown, not followed
            http = _bounded(openai.DefaultAsyncHttpxClient)(follow_redirects=False)
        except (ValueError, ImportError):  # whose text may hold a password
            names = "HTTP_PROXY, HTTPS_PROXY or ALL_PROXY"
            raise UserError(f"{names} in the environment is no proxy that can be used; set it again") from None
        self.client: AsyncOpenAI = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self.url,
            max_retries=0,
            timeout=openai.Timeout(timeout_s, connect=connect),
            http_client=http,
        )
        self._timeout = openai.Timeout(None, connect=connect, pool=None)  # the whole is timed in `post`

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.client.close()

    async def post(self, body: dict[str, Any], limit_s: float) -> Came:
        """Sends a chat completion and returns the response, whatever its status.

        Raises:
          Broken: none came within `limit_s` seconds, or the connection could not be made or kept.
        """
        import openai

        try:
            async with asyncio.timeout(limit_s):
                whole = await self.client.post(
                    "/chat/completions",
                    body=body,
                    cast_to=openai.HttpxBinaryResponseContent,
                    options={"timeout": self._timeout},
                )
            came = whole.response
        except TimeoutError:
            raise Broken(f"no answer within {limit_s:,g} s", sent=True, late=True) from None
        except openai.APIStatusError as error:
            came = error.response
        except openai.APIConnectionError as error:
            raise broken(error) from None
        headers = {name.lower(): value for name, value in came.headers.items()}
        return Came(came.status_code, headers, self.without_key_in(came.content))

    def clean(self, text: str) -> str:
        """Text from outside on one line, without the key; a short key is hidden where it is a word of its own."""
        if self._key and len(self._key) < _SHORT_KEY:
            text = re.sub(rf"(?<!\w){re.escape(self._key)}(?!\w)", "[key]", text)
        return response.plain(self.without_key_in(text.encode(errors="replace")).decode())

    def without_key_in(self, body: bytes) -> bytes:
        """Bytes from outside without the key; a short one may be part of anything, and stays."""
        return body.replace(self._key.encode(), b"[key]") if self._key and len(self._key) >= _SHORT_KEY else body

    def refusal(self, failure: Failure, what: str = "") -> UserError:
        """A failure that only the user can mend, in the endpoint's words, and what to look at; `what` it refuses."""
        return UserError(f"{self.url} answers{what and f' {what}'}: {self.clean(failure.said)}{self._remedy(failure)}")

    def _remedy(self, failure: Failure) -> str:
        if failure.kind is Kind.NO_API:
            return "; see --base_url (most end in /v1)"
        if 300 <= failure.status < 400:
            return "; give the address that it names as --base_url"
        if failure.status in (401, 403):
            return "; see OPENAI_API_KEY" if self._key else "; set OPENAI_API_KEY, the key that it asks for"
        if failure.status in (404, 405, 501):
            return "; see --model and --base_url (most end in /v1)"
        if failure.status in (402, 429):
            return "; see the quota of this account"
        return "; see --model, --max_tokens, --temperature" if failure.status < 500 else ""


class _TooLarge(Exception):
    """An answer is larger than any that could be meant."""


def _bounded(base: type) -> type:
    """A class of HTTP clients that reads no answer into memory that is larger than `LARGEST`, when unpacked.

    Made of the base where that is known: importing it would import the HTTP library in every command.
    """
    import openai

    class Bounded(base):  # type: ignore[misc]
        async def send(self, request: Any, **how: Any) -> Any:
            came = await super().send(request, **how | {"stream": True})
            if how.get("stream"):  # to a file
                return came
            body = bytearray()
            try:
                async for part in came.aiter_bytes():
                    body += part
                    if len(body) > LARGEST:
                        why = _TooLarge(f"an answer of more than {LARGEST / 2**20:.3g} MiB")
                        raise openai.APIConnectionError(request=request) from why
            finally:
                await came.aclose()
            headers = [(name, value) for name, value in came.headers.multi_items() if name != "content-encoding"]
            return type(came)(came.status_code, headers=headers, content=bytes(body), request=request)

    return Bounded


def is_http_error(error: BaseException) -> bool:
    """Whether an error is of the HTTP library's under the client, which lets them through while it streams."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


def broken(error: BaseException) -> Broken:
    """Why a connection could not be made or kept, in words, from the chain of errors under the client's own."""
    chain: list[BaseException] = []
    cause: BaseException | None = error if is_http_error(error) else error.__cause__ or error.__context__
    while cause is not None and len(chain) < 20:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = {type(link).__name__ for link in chain}
    sent = not names & _NOTHING_SENT
    said = next((str(link) for link in reversed(chain) if str(link)), "")
    said = re.sub(r"^\[[^\]]*\] |\(_ssl.*$", "", said).strip()
    if any(isinstance(link, ssl.SSLError) for link in chain) and not sent:
        return Broken(f"no secure connection ({said}); see its certificate, or http:// instead of https://", sent=False,
                      hopeless=True)  # fmt: skip
    if too_large := next((str(link) for link in chain if isinstance(link, _TooLarge)), ""):
        return Broken(too_large, sent=True)
    if "ConnectTimeout" in names:
        return Broken("no connection (nobody answers there)", sent=False)
    if any(isinstance(link, ConnectionRefusedError) for link in chain):
        said = "refused: nobody listens there"
    if any(isinstance(link, socket.gaierror) for link in chain):
        said = f"the host's name leads nowhere: {said}"
    if not sent:
        return Broken(f"no connection ({said})", sent=False)
    return Broken(f"the connection broke ({said or type(error).__name__})", sent=True)
