"""Converts a teacher's reply in JSON or in tags to text, whatever names and nesting the model chose."""

import json
import re
from collections.abc import Iterator
from typing import Any

from lema_jax.tasks.steps import label


def as_text(reply: str) -> str:
    """The parts of a reply in JSON or tags under their headings; the reply itself where it is neither."""
    found = _parsed(reply)
    reply, fields = (reply, list(_fields(found))) if isinstance(found, dict) else _tagged(reply)
    step = next((number for key, value in fields if _STEP.search(key) if (number := _numbers(value))), "")
    explanation = " ".join(_prose(value) for key, value in fields if _EXPLANATION.search(key)).strip()
    solution = next((lines for key, value in fields if _SOLUTION.search(key) if (lines := _lines(value))), [])
    answer = next((_prose(value) for key, value in fields if _ANSWER.search(key) and _prose(value)), "")
    if not solution and not step:
        return reply
    if answer and solution and not _STATED.search(solution[-1]):
        solution.append(f"The answer is {answer.rstrip('.')}.")
    named = f"Incorrect Step: {step}\n" if step else ""
    return f"{named}Explanation: {explanation}\nCorrect Solution:\n" + "\n".join(solution)


# Keys as letters alone: `incorrect_step`, `IncorrectStep`, `incorrect step` are the same.
_EXPLANATION = re.compile(r"expla|reason|^why|^mistakes?$|description|analysis|feedback|critique")
_STEP = re.compile(
    r"(?:incorrect|wrong|error|mistake|faulty|first).*step|^step(?:number|index|no|id)?$|^(?:step)?number$"
)
_SOLUTION = re.compile(
    r"solution|(?:correct|revis|fix|new|right).*steps|(?:correction|corrected|revision|revised|steps)$"
)
_ANSWER = re.compile(r"answer|result")
_STATED = re.compile(r"answer\s+is|\\boxed|####", re.IGNORECASE)


def _parsed(reply: str) -> Any:
    """The first JSON object of a text, None where there is none."""
    start = reply.find("{")
    if start < 0 or not _OPENS.match(reply, start):
        return None
    found = _decoded(reply[start:])
    if found is None or _LOST.search(json.dumps(found)):  # of LaTeX that was not escaped: `\frac` became a form feed
        escaped = _ESCAPE.sub(lambda one: one.group() if one["kept"] else f"\\{one.group()}", reply[start:])
        found = _decoded(escaped) or found
    return found


def _decoded(text: str) -> Any:
    try:
        return json.JSONDecoder(strict=False).raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


_OPENS = re.compile(r'\{\s*"')
_LOST = re.compile(r"(?<!\\)(?:\\\\)*\\(?:[bftr]|neq\b)")
# A backslash that JSON takes for an escape, or else one of LaTeX that was not doubled: `\frac` is no form feed.
_ESCAPE = re.compile(
    r"(?P<kept>\\(?:\\|[\"/]|u[0-9a-fA-F]{4}|"
    r"(?!(?:bar|begin|beta|big|binom|bmod|boldsymbol|boxed|bullet|fbox|forall|frac|ne|neg|neq|newline|not|rangle|rceil"
    r"|rfloor|rho|right|rightarrow|tan|tau|text|textbf|tfrac|therefore|theta|times|to|triangle)(?![a-z]))[bfnrt]))|\\"
)


_TAGGED = re.compile(r"<([a-zA-Z][\w-]{2,40})>(.*?)</\1>", re.DOTALL)


def _tagged(reply: str) -> tuple[str, list[tuple[str, Any]]]:
    """A reply without tags such as `<solution>`, and its parts where step and solution both stand in tags."""
    tagged = [(_key(found[1]), found[2].strip()) for found in _TAGGED.finditer(reply[:_LONGEST_TAGGED])]
    parts = [(name, text) for name, text in tagged if not re.search("original|student|attempt", name)]
    whole = all(any(kind.search(name) for name, _ in parts) for kind in (_STEP, _SOLUTION))
    return _TAG.sub("\n", reply), parts if whole else []


_LONGEST_TAGGED = 20_000  # characters
_TAG = re.compile(r"</?(?:[a-z]{1,20}[_-]){0,2}(?:solution|explanation|steps?|correction)>", re.IGNORECASE)


def _key(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _fields(value: dict[str, Any], inside: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The entries with their keys; of an object in the object its own entries, but a solution is one."""
    for name, one in value.items():
        key = _key(name)
        inner = [_key(name) for name in one if name.isalpha() or "_" in name] if isinstance(one, dict) else []
        is_reply = any(_STEP.search(name) or _EXPLANATION.search(name) for name in inner)  # the reply under another key
        solution = isinstance(one, dict) and not is_reply and _SOLUTION.search(key) and _lines(one)
        if isinstance(one, dict) and not solution and depth < _DEEPEST:
            yield from _fields(one, key, depth + 1)
        elif key in ("number", "index", "id", "value") and inside:
            yield inside, one
        else:
            yield key, one
            if solution:
                yield from ((_key(name), text) for name, text in one.items() if _ANSWER.search(_key(name)))


_DEEPEST = 8


def _numbers(value: Any) -> str:
    """`Step 2 and 3`, of whatever names steps."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, int | float):
        return f"Step {int(value)}" if value == value // 1 else ""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_numbers, value)))
    if isinstance(value, str) and (value := " ".join(value.split())):
        return f"Step {value}" if value[0].isdigit() else value
    return ""


def _prose(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_prose, value))
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _lines(value: Any) -> list[str]:
    """The lines of a solution: a text, a list of texts or of objects, an object of steps by their labels."""
    if isinstance(value, str):
        return [line for line in value.strip().strip("{}").splitlines() if line.strip()]
    if isinstance(value, dict):
        if steps := next((one for key, one in value.items() if _key(key).endswith("steps")), None):
            return _lines(steps)
        labelled = {key: one for key, one in value.items() if label(f"Step {key}:" if key.isdigit() else f"{key}:")}
        return [f"{f'Step {key}' if key.isdigit() else key}: {_flat(one)}" for key, one in labelled.items()]
    if not isinstance(value, list):
        return []
    lines = [_line(one) for one in value]
    if len(lines) > 1 and not any(label(line) for line in lines):
        lines = [f"{number}. {line}" for number, line in enumerate(lines, start=1)]
    return [line for line in lines if line]


def _line(value: Any) -> str:
    """One step: a text, or an object of its number and its text."""
    if not isinstance(value, dict):
        return _flat(value)
    number = next((one for one in value.values() if isinstance(one, int) and not isinstance(one, bool)), None)
    texts = [_flat(one) for key, one in value.items() if isinstance(one, str)]
    if number is None and len(texts) > 1 and (found := label(f"{texts[0]}:")) and not found[1]:  # `Step 2`, its text
        return f"{texts[0]}: {' '.join(texts[1:])}"
    return f"Step {number}: {' '.join(texts)}" if number is not None else " ".join(texts)


def _flat(value: Any) -> str:
    return " ".join(_prose(value).split())
