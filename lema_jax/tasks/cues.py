r"""Finds where a text states its final answer: after a cue (`the answer is`, `#### `, `A:`), in a box, between tags.

Cues exist in the languages that models answer in. A remark about an answer (`the answer is correct`, `if the answer is
5`, `the answer is not 5`) states none. Linear in the length of the text.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from lema_jax.tasks import presentation, thinking

_LONGEST_STATED = 2_000  # characters of an answer
_MOST_CUES = 50  # of one kind that are read


class Statement(NamedTuple):
    """An answer that a text states."""

    text: str  # what follows a cue, up to 2,000 characters, or what the boxes contain
    boxes: tuple[str, ...] = ()  # their contents; the boxes of one sentence are one statement
    remark: bool = False  # about an answer (`is correct`, `is not 5`), unless the answer is in words


def statements(text: str) -> Iterator[Statement]:
    """All statements of an answer in a reasoning path, the last one first, normalised by `presentation.document`.

    Ignores everything from the start of another question (`of_this_question`).
    """
    return _statements(of_this_question(text))


def _statements(text: str) -> Iterator[Statement]:
    text = presentation.document(text)
    groups = _sentences_of_boxes(text)
    within = [range(box.start, box.end) for group in groups for box in group]
    found = [(rank, stated) for rank, stated in _cued(text) if not any(rank in box for box in within)]
    for group in groups:
        contents = tuple(_SAID_IN_BOX.sub("", box.content) for box in group)
        found.append((group[-1].start, Statement(", ".join(filter(None, contents)), contents)))
    for _, statement in sorted(found, key=lambda one: one[0], reverse=True):
        yield statement


def last_boxes(text: str) -> list[str]:
    r"""The contents of the last box of a text and of the other boxes in its sentence, verbatim."""
    groups = _sentences_of_boxes(text)
    return [box.content for box in groups[-1]] if groups else []


# --- the next question ------------------------------------------------------------------------------------------------

# The first words of the prompts that this project asks by, which a model that goes on after its answer writes again.
MATHEMATICS = "Please solve the following math problem"
COMMONSENSE = "Please answer the following commonsense question"
INSTRUCTION = "Below is an instruction that describes a task"

_ASKER = "Question|Problem|User|Human"
# Matches from the start of white space, possessively: linear even for a text of line breaks alone.
_NEXT_QUESTION = re.compile(
    rf"(?<!\s)(?=[^\S\n]*+\n[^\S\n]*+\n)\s*+(?:Q|{_ASKER}|#+\s*+Instruction)\s*+:"
    r"|(?<=\S)\s*+(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>)\s*+user"
    rf"|(?<=\S)\s*+(?:{MATHEMATICS}|{COMMONSENSE}|{INSTRUCTION})"
)
_QUESTION_LINE = re.compile(
    rf"(?:^|(?<=\|>))[ \t*#_]*+(?:{_ASKER}|Instruction)[ \t]*+(?P<number>\d{{1,4}})?+[ \t*_]*+(?::|$)"
    r"|<\|end_?of_?text\|>|</s>|<eos>",
    re.MULTILINE,
)
_ASKS = re.compile(rf"Q\s*+:|{_ASKER}|Instruction|user|of_?text|</s>|<eos>|{MATHEMATICS}|{COMMONSENSE}|{INSTRUCTION}")


def of_this_question(text: str) -> str:
    """A reasoning path without its thinking, up to where the model goes on with another question.

    Another question starts with a paragraph `Q:`, `Question:`, `User:` or `### Instruction:`, a user's turn in a chat
    template, or the first words of this project's prompts; behind a statement of an answer also with a line `Question:`
    in any dress, or at the end of a document (`<|endoftext|>`). Questions that a path numbers from before its first
    statement (`Question 1:`) are its own parts.
    """
    text = thinking.spoken(text).text
    if not _ASKS.search(text):
        return text
    if next_question := _NEXT_QUESTION.search(text):
        text = text[: next_question.start()]
    start, stated, numbers = 0, False, False
    for line in itertools.islice(_QUESTION_LINE.finditer(text), _MOST_CUES):
        before = _statements(text[start : line.start()])
        stated = stated or any(one.text.strip() and not one.remark for one in before)
        if stated and not (numbers and line["number"]):
            return text[: line.start()]
        start, numbers = line.end(), numbers or bool(line["number"])
    return text


# --- boxes ------------------------------------------------------------------------------------------------------------

_BOX = re.compile(r"\\f?boxed(?![a-zA-Z])|\\fbox(?![a-zA-Z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_WORD = re.compile(r"\s*[^\s$]*")
_AND = re.compile(r"\b(?:and|or)\b|[,;&]")
_DEDUCED = re.compile(
    r"[.!?](?:\s|$)|\n\s*\n|\\(?:to|implies|Rightarrow)\b"
    r"|\b(?:but|so|thus|hence|therefore|then|i\.e|that is|because|since|which|simplif\w+|rounded|about|not)\b"
)


class _Box(NamedTuple):
    content: str
    start: int
    end: int


def _sentences_of_boxes(text: str) -> list[list[_Box]]:
    """The last boxes, grouped if a sentence lists several (`$\\boxed{3}$ and $\\boxed{5}$`)."""
    groups: list[list[_Box]] = []
    if "box" not in text:
        return groups
    for opened in _last(_BOX, text):
        content, end = _argument(text, opened.end())
        content = content.strip()
        box = _Box(content, opened.start(), end)
        before = groups[-1][-1] if groups else None
        if before and before.end <= box.start and _listed(text[before.end : box.start]):
            if content not in (one.content for one in groups[-1]):
                groups[-1].append(box)
        else:
            groups.append([box])
    return groups


def _listed(between: str) -> bool:
    """Whether the text between two boxes makes them a list, rather than steps of a deduction."""
    return len(between) <= 150 and bool(_AND.search(between)) and not _DEDUCED.search(between)


def _argument(text: str, start: int) -> tuple[str, int]:
    """The content of the braces that open at `start` or after white space, and where it ends.

    Without an opening brace: the first word. Without a closing one: the rest of the text, up to 2,000 characters.
    """
    word = _WORD.match(text, start)
    assert word is not None
    opening = text.find("{", start, word.end())
    if opening < 0 or text[start:opening].strip():
        return word.group().strip(), word.end()
    depth, limit = 0, min(len(text), start + _LONGEST_STATED)
    for brace in _BRACE.finditer(text, opening, limit):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return text[opening + 1 : brace.start()], brace.end()
    return text[opening + 1 : limit], limit


# --- cues -------------------------------------------------------------------------------------------------------------


class _Cue(NamedTuple):
    """A kind of cue."""

    words: Sequence[str]  # lower case; a text without any of them is not searched
    pattern: re.Pattern[str]
    read: Callable[[re.Match[str], str, str], str]  # (the cue, text before, text after) -> statement
    weak: bool = False  # ranks below every other cue, at any place


_NOUN = r"(?:answers?|(?:final|end)\ (?:result|value|solution)|(?:correct|best|right)\ (?:option|choice))"
_VERB = (
    r"\b(?:is|are|was|were|be|becomes|remains|equals|comes\ (?:out\ )?to|turns\ out\ to\ be)\b"
    r"(?:\s+(?:equal\ to|given\ by|(?:as\ )?follows)\b)?"
)
_SAID = re.compile(
    rf"^[\w\ ]{{0,30}}\b{_NOUN}[^\S\n]*(?:$|[-—>]+(?=\s)|(?<=final\ answer)\s+(?=[-$(\\]*\d))"
    rf"|(?<![</])\b{_NOUN}\b(?P<between>[^.:;\n=?!$\\\]]{{0,80}}?)"
    rf"(?:(?<!(?:answer|option|choice)\ that\ )(?P<verb>{_VERB})\s*:?|[:=]|\\to\b)",
    re.VERBOSE | re.MULTILINE | re.IGNORECASE,
)
_SAID_IN_BOX = re.compile(
    rf"^\s*(?:\\text\s*\{{)?[^\d$\\]{{0,40}}\b{_NOUN}\s*(?:{_VERB}|:)[\s:]*\}}?", re.VERBOSE | re.IGNORECASE
)
_HYPOTHETICAL = re.compile(r"\b(?:if|whether|unless|suppos(?:e|ing)|assum(?:e|ing))\b[^.\n]{0,20}$", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:in(?:correct|valid)|wrong|false|mistaken|common)\s+$", re.IGNORECASE)
_WITHIN = re.compile(
    r"\b(?:in|of|from|for|with|to|on|about|under|(?:double-?)?check(?:ing)?|verify(?:ing)?|confirm(?:ing)?|test(?:ing)?)"
    r"\s+(?:that\s+)?(?:the|my|your|our|this|that|an|a)\s+(?:\w+\s+)?$",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"\b(?:not|cannot|never|neither|but|because|since|while|by)\b|n't\b", re.IGNORECASE)
_NOT_BUT = re.compile(r"\s*not\b[^.\n]{1,60}?\b(?:but|it is|it's|rather)\s", re.IGNORECASE)
_REMARK = re.compile(
    r"""[^.!?\n]{0,60}\?(?:\s|$)|\s*let(?:'s|\ us)\b[^\d.\n]*(?:[.\n]|$)
    |\s*(?:(?:also|indeed|therefore|thus|now|already|still|both|quite|very)\s+)*
    (?:not|never|neither|(?:in)?(?:correct|valid|consistent|accurate)|right|wrong|reasonable|clear|obvious|plausible|verified|confirmed
      |close|accept(?:able|ed)|expected|obtained|found|calculated|determined|derived|supposed|unique|expressed|needed
      |the\ same|based|as\ expected|rounded\ (?:(?:off|up|down)\ )?to\ (?:the|\w+\ (?:decimal|significant)))\b""",
    re.VERBOSE | re.IGNORECASE,
)


_JSON = re.compile(r"\s*(?:\"([^\"\n]*)\"|((?:[^,}\n]|,(?=\d{3}(?!\d)))*))")


def _said(cue: re.Match[str], before: str, after: str) -> str:
    """`the answer is …`, `Answer: …`, `"answer": …`, or a line `Answer` alone; empty for a remark about an answer."""
    if cue["between"] == '"' and (value := _JSON.match(after)):
        return value[1] or value[2] or ""
    if _HYPOTHETICAL.search(before) or _DENIED.search(before) or _NEGATED.search(cue["between"] or ""):
        return ""
    return "" if not cue["verb"] and _WITHIN.search(before) else _affirmed(after)


def _affirmed(after: str) -> str:
    """`6` of `not 5 but 6`."""
    denied = _NOT_BUT.match(after)
    return after[denied.end() :] if denied else after


_REVERSED = re.compile(
    r"\b(?:is|are) (?:indeed )?(?:the|our|my) (?:(?:final|correct|desired) )*answers?\b(?!\s*(?:is|:|to))",
    re.IGNORECASE,
)
_LAST_WORD = re.compile(
    r"(?:\$[^$\n]{1,100}\$|\([A-J]\)[^.,\n]{0,60}|(?<![\w'])[A-J]"
    r"|(?<![\w.])-?[$£€]?(?:\d+ )?\d+(?:[.,/]\d+)*(?:e\d+|%)?(?: [a-zA-Z]+)?)$"
)


def _said_before(cue: re.Match[str], before: str, after: str) -> str:
    """`12 is the answer`."""
    said = _LAST_WORD.search(before.rstrip())
    return said.group() if said else ""


_SOLUTIONS = re.compile(r"\bthe solutions? (?P<verb>is|are)\b", re.IGNORECASE)
_MATTER = re.compile(r"\s*:?\s*(?:[-+$£€(\[\\\d]|[a-zA-Z]\s*=)")


def _said_at_once(cue: re.Match[str], before: str, after: str) -> str:
    return after if _MATTER.match(after) else ""


_MARK = re.compile(r"(?<!#)#{4}(?!#)|^[^\S\n]*(?:A:|(?:[Aa]ns|ANS)\b(?:\.|\s*[:=])?(?:\s*-\s)?)", re.MULTILINE)
_NUMBERED = re.compile(r"(?<!#)#{4}[^\S\n]*(\d{1,2})[.):][^\S\n]+\S")
_HEADING = re.compile(r"\s*(?:step|part|case|method|approach|phase|section|stage)\s*\d", re.IGNORECASE)


def _marked(cue: re.Match[str], before: str, after: str) -> str:
    """`#### 5`, `A: 5`; empty for headings: `#### Step 2: …`, or `#### 2. …` after `#### 1. …`."""
    if "#" in cue.group():
        numbered = _NUMBERED.match(cue.string, cue.start())
        if numbered and int(numbered[1]) == len(_NUMBERED.findall(cue.string, 0, cue.start())) + 1:
            return ""
        if _HEADING.match(after):
            return ""
    return _affirmed(after)


_TAG = re.compile(r"<(?:final[_ ]?)?answer>|\[(?:final[_ ])?answer\]", re.IGNORECASE)
_END_TAG = re.compile(r"</|\[/")


def _tagged(cue: re.Match[str], before: str, after: str) -> str:
    return _END_TAG.split(after, maxsplit=1)[0]


# "Answer" in other languages -> what may link it with the answer, besides a colon.
_SPACED = {
    "antwort|lösung|endergebnis": "ist|lautet|beträgt|wäre|sind|lauten",
    "respuesta|solución final": "es|sería|son",
    "réponse|solution finale": "est|sera|serait|sont",
    "resposta": "é|seria|são",
    "risposta": "è|sarebbe|sono",
    "antwoord": "is|luidt",
    "odpowiedź|odpowiedzią": "to|jest|wynosi",
    "svaret|svar": "är|er|blir",
    "vastaus": "on",
    "odpověď": "je",
    "răspunsul|răspuns": "este",
    "válasz": "",
    "cevap|yanıt": "",
    "jawaban|jawabannya": "adalah|ialah",
    "jibu": "ni",
    "đáp án|đáp số|câu trả lời": "là",
    "απάντηση": "είναι",
    "ответ|ответом": "равен|равно|равна|будет|составляет|является|это",
    "відповідь": "дорівнює|це",
    "उत्तर|जवाब": "है",
    "উত্তর": "হল|হলো",
    "సమాధానం": "",
    "الجواب|الإجابة|جواب": "هو|هي",
    "התשובה|תשובה": "היא|הוא",
}
_UNSPACED = {
    "答案|答え|回答|解答|答(?=:)": "是|为|為|应该是|應該是|就是|は|等于|等於",
    "정답|답": "은|는",
    "คำตอบ": "คือ|เท่ากับ",
}


def _foreign(names: dict[str, str], word: str) -> _Cue:
    """A cue: a name, then in the same sentence a colon or a link, or immediately a number.

    Args:
      word: pattern of a letter, which may not precede or follow the name; empty for a script without spaces.
    """
    name, link = map(presentation.characters, ("|".join(names), "|".join(filter(None, names.values()))))
    start, end = (f"(?<!{word})", f"(?!{word})") if word else ("", "")
    linked = rf"[^.!?\n:=\d]{{0,60}}?(?:[:=—]|{start}(?P<verb>{link}){end})+:?"
    pattern = rf"{start}(?:{name}){end}(?:{linked}|[^\S\n]*-?[^\S\n]*(?=[-+$(]*\d))"
    words = re.sub(r"\(.*?\)", "", name).split("|")
    return _Cue(words, re.compile(pattern, re.IGNORECASE), _said_abroad)


def _said_abroad(cue: re.Match[str], before: str, after: str) -> str:
    """`1.250` as `1250` if the language of the cue groups thousands by points."""
    if _OF_POINTS.match(cue.group()):
        return _THOUSANDS.sub(lambda number: number.group().replace(".", ""), after)
    return after


_OF_POINTS = re.compile("antwort|lösung|endergebnis|respuesta|soluci|resposta|risposta|antwoord|jawaban", re.IGNORECASE)
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:\.\d{3})+(?![\d]|\.\d)")


_LIST = re.compile(r"\s*\n[^\S\n]*1[.)][^\S\n]+\S(?=.*\n[^\S\n]*+2[.)]\s)", re.DOTALL)
_SENTENCE = re.compile(r"\D*(?:[^.!?;\n]|[.!?;](?!\s|$)|(?<=\d)!)*")  # the first that has a number
_REASON = re.compile(r"\s(?:\(|(?:because|since)\b)")
_IN_WORDS = re.compile(r"\W*[^\W\d]{2,}\s")
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_SUM = re.compile(r"(?:[-+*/x]|\\(?:times|cdot|div)\b)[^\w\n]{0,5}\d[^=\n]{0,60}=[^\w\n]{0,5}(\d[\d,.]*)")


def _leads_on(after: str) -> bool:
    """Whether what stands behind a cue without a verb (`Answer:`) is no answer but the way to one.

    It is a list of steps; or its first sentence is no lone quantity, and the sums behind end in another number.
    """
    if _LIST.match(after):
        return True
    sentence = _SENTENCE.match(after)
    assert sentence is not None
    said, behind = _REASON.split(sentence.group(), maxsplit=1)[0], after[sentence.end() :]
    sums = _SUM.findall(behind)
    if not sums or not (_IN_WORDS.match(said) or _SUM.search(said)):
        return False
    ends = f"{sums[-1]} {_NUMBER.findall(behind)[-1]}"
    return _values(said.rpartition("=")[2]).isdisjoint(_values(ends))


def _values(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in _NUMBER.findall(text)}


_CUES = (
    _Cue(("answer", "final", "end ", "option", "choice"), _SAID, _said),
    _Cue(("answer",), _REVERSED, _said_before),
    _Cue(("the solution",), _SOLUTIONS, _said_at_once, weak=True),
    _Cue(("####", "a:", "ans"), _MARK, _marked),
    _Cue(("answer>", "answer]"), _TAG, _tagged),
    _foreign(_SPACED, r"[^\W\d_]"),
    _foreign(_UNSPACED, ""),
)


_WORDS = [cue.words for cue in _CUES]
_ASCII_WORDS = [[word for word in words if word.isascii()] for words in _WORDS]


def _cued(text: str) -> Iterator[tuple[int, Statement]]:
    """The rank (by place) and the statement of each cue that has one, in any order."""
    lower = text.lower()
    words_of = _ASCII_WORDS if lower.isascii() else _WORDS
    for cue, words in zip(_CUES, words_of):
        for found in _last(cue.pattern, text) if any(map(lower.__contains__, words)) else ():
            before = text[max(0, found.start() - 100) : found.start()]
            stated = cue.read(found, before, text[found.end() : found.end() + _LONGEST_STATED])
            if stated and (found.groupdict().get("verb") or not _leads_on(stated)):
                yield found.start() - cue.weak * len(text), Statement(stated, remark=bool(_REMARK.match(stated)))


def _last(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return list(pattern.finditer(text))[-_MOST_CUES:]
