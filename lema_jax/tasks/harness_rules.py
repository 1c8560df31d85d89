"""lm-evaluation-harness's two rules for GSM8K, as behaviour: what each reads from an answer, and when it is right.

Both are quoted as "GSM8K accuracy", and differ by many points (its issue 2362). Answer and gold are compared as texts,
without commas, dollar signs and a last full stop (version 0.4, `gsm8k.yaml`).
"""

import re

RULES = {
    "strict": re.compile(r"#### (-?[0-9.,]+)"),  # the first `#### 72`
    "flexible": re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+"),  # the last number
}
_IGNORED = re.compile(r"[,$]|\.$")


def answer(text: str, rule: str) -> str | None:
    """What a rule, one of RULES, reads from an answer; None where it finds nothing."""
    found = [match[1] if rule == "strict" else match[0] for match in RULES[rule].finditer(text)]
    if not found:
        return None
    return found[0] if rule == "strict" else found[-1]


def right(text: str, gold: str, rule: str) -> bool:
    """Whether what the rule reads is the gold answer, character by character."""
    found = answer(text, rule)
    return found is not None and _plain(found) == _plain(gold)


def _plain(answer: str) -> str:
    return _IGNORED.sub("", answer.strip()).lower()
