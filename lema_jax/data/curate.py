"""Filters and mix of a data set: duplicates, held-out questions, overlap with test questions.

Pure functions that count what they leave out. Random draws rank rows by a hash of seed and text, so the arms of a
comparison share as many rows as possible.
"""

import dataclasses
import hashlib
import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from lema_jax.errors import UserError
from lema_jax.records import Attempt, Correction, Example, Pair, Problem, Verdict

T = TypeVar("T")

NGRAM = 8  # words
SHARED = 0.8  # least shared part of a test question's n-grams, or of both questions' words, that counts as overlap
# A number, a letter of a script without spaces, or a word.
_SPACELESS = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"\d+(?:[.,]\d+)*|[{_SPACELESS}]|(?:(?![{_SPACELESS}])[^\W\d_])+")
_OPERATOR = re.compile(r"(?<=[\d)])\s*(\*\*|[-+*/^x×÷⁄−–—])(?=\s*[\d(])")
_ALIKE = {"**": "^", "x": "*", "×": "*", "÷": "/", "⁄": "/", "−": "-", "–": "-", "—": "-"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A candidate training example, with the rows it was made from.

    `name` is what it is drawn by: the examples of one row, in whichever form, are drawn together.
    """

    problem: Problem
    example: Example
    correction: Correction | None = None
    attempt: Attempt | None = None  # what it learns from, besides chain of thought; a correction's too
    closed: bool = False  # the final sentence was added to its completion
    untagged: str = ""  # id of the example without a tag in its prompt

    @property
    def name(self) -> str:
        of_row = self.correction.id if self.correction else self.attempt.id if self.attempt else ""
        return of_row or self.untagged or self.example.id


@dataclasses.dataclass
class Pool:
    """Candidates of one kind, and how many of them each filter removed."""

    name: str
    candidates: list[Candidate]
    left_out: list[tuple[str, int]]  # (why, how many), in the order of the filters
    share: float | None = None  # of an equalised mix; None for chain of thought
    right_share: float | None = None  # of right attempts among those that it has; None for as they come
    remedy: str = ""  # which command makes more of its rows

    def filter(self, passes: Callable[[Candidate], bool], otherwise: str) -> None:
        """Removes the candidates that do not pass, and counts them as `otherwise`."""
        passed = [candidate for candidate in self.candidates if passes(candidate)]
        self.left_out.append((otherwise, len(self.candidates) - len(passed)))
        self.candidates = passed

    def counts(self) -> str:
        """One line: rows read, rows removed and why, rows left."""
        read = len(self.candidates) + sum(count for _, count in self.left_out)
        steps = "".join(f", {count:,} {why}" for why, count in self.left_out if count)
        return f"{self.name}: {read:,} rows{steps}; {len(self.candidates):,} left"


_REMEDIES = {
    "over-long": "raise --max_tokens, --max_prompt or --max_completion",
    "repeated": "each is in another part of the mix already",
    "of a test question": "train on other questions, or take --overlap=keep to train on these",
    "of a dev question": "lower --dev_questions",
}


def require_some(pool: Pool) -> None:
    """Raises a `UserError` with the counts of all filters, and the remedy for the greatest, if the pool is empty."""
    if not pool.candidates:
        most, count = max(pool.left_out, key=lambda one: one[1], default=("", 0))
        remedy = (count and _REMEDIES.get(most)) or pool.remedy or "loosen what left them out, or give more"
        raise UserError(f"nothing is left to learn from ({pool.counts()}); {remedy}")


def normal(text: str) -> str:
    """Text normalised for comparison: case, white space and Unicode compatibility forms make no difference."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def asked(problem: Problem) -> tuple[str, ...]:
    """What a question is known by: its text and its choices in whichever order, normalised."""
    return (normal(problem.question), *sorted(map(normal, problem.choices)))


def words(text: str) -> list[str]:
    """The words and numbers of a question, in lower case, without punctuation; 1,200 is 1200."""
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    return _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).casefold())


def _operators(text: str) -> tuple[str, ...]:
    """The signs between the numbers of a question, in whichever writing."""
    return tuple(_ALIKE.get(sign, sign) for sign in _OPERATOR.findall(_plain(text)))


def leave_out_repeated(pools: Iterable[Pool]) -> None:
    """Keeps the first of each text (prompt and completion, of a pair both) in all pools together."""
    first: dict[tuple[str, ...], Candidate] = {}

    def is_first(row: Candidate) -> bool:
        one = row.example
        texts = (one.prompt, one.completion, one.rejected) if isinstance(one, Pair) else (one.prompt, one.completion)
        return first.setdefault(tuple(map(normal, texts)), row) is row

    for pool in pools:
        pool.filter(is_first, "repeated")


def hold_out(problems: Sequence[Problem], count: int, seed: int) -> list[Problem]:
    """`count` problems for a dev split, drawn by question and seed, in their order.

    Raises:
      UserError: no question would remain.
    """
    ranked = sorted({asked(problem) for problem in problems}, key=lambda one: (rank(seed, one[0]), one))
    if count and count >= len(ranked):
        raise UserError(f"dev_questions={count} must be below the {len(ranked)} distinct questions there are")
    chosen, dev = set(ranked[:count]), []
    for problem in problems:
        if asked(problem) in chosen:
            chosen.remove(asked(problem))
            dev.append(problem)
    return dev


def not_of(held_out: Iterable[Problem]) -> Callable[[Candidate], bool]:
    """A filter against held-out questions, and those that `evolve` made from one (`meta["seed"]`)."""
    questions, ids = set(), set()
    for problem in held_out:
        questions.add(asked(problem))
        ids.add(problem.id)
    return lambda row: asked(row.problem) not in questions and row.problem.meta.get("seed") not in ids


class Overlap:
    """Finds training questions that overlap with a test question.

    They do if they contain most (`SHARED`) of its n-grams of `NGRAM` words: the same question, or a longer one. They
    also do if they have the same numbers and share most words, in any order: the question with other names. A shared
    phrase, or the same story with other numbers, is no overlap.
    """

    def __init__(self, tests: Iterable[Problem]):
        # all words, or all numbers -> ids of test questions, their words and the operators between their numbers
        self._by_words: dict[tuple[str, ...], list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
        self._by_numbers: dict[tuple[str, ...], list[tuple[str, Counter[str], tuple[str, ...]]]] = defaultdict(list)
        self._by_ngram: dict[tuple[str, ...], list[int]] = defaultdict(list)  # -> places of them
        self._ngrams: list[tuple[str, int]] = []  # by place the id, which may repeat, and how many it has
        for place, problem in enumerate(tests):
            text = words(problem.question)
            signs = _operators(problem.question)
            self._by_words[tuple(text)].append((problem.id, signs))
            self._by_numbers[_numbers(text)].append((problem.id, Counter(text), signs))
            grams = _ngrams(text)
            self._ngrams.append((problem.id, len(grams)))
            for gram in grams:
                self._by_ngram[gram].append(place)

    def find(self, question: str) -> str | None:
        """The id of a test question that `question` overlaps with, or None."""
        return next(self.all(question), None)

    def all(self, question: str) -> Iterator[str]:
        """The ids of the test questions that `question` overlaps with; some may come twice."""
        text = words(question)
        signs = _operators(question)
        alike = lambda others: not signs or not others or signs == others  # `12 * 7` is not `12 + 7`
        yield from (id for id, others in self._by_words.get(tuple(text), ()) if alike(others))
        counted = Counter(text)
        for id, other, others in self._by_numbers.get(_numbers(text), ()):
            if alike(others) and (counted & other).total() >= SHARED * max(counted.total(), other.total()):
                yield id
        shared = Counter(place for gram in _ngrams(text) for place in self._by_ngram.get(gram, ()))
        for place, count in shared.items():
            id, of = self._ngrams[place]
            if count >= SHARED * of:
                yield id


def mix(
    cot: Iterable[T],
    others: Sequence[tuple[Iterable[T], float | None]],
    key: Callable[[T], Hashable] | None = None,
) -> Iterator[T]:
    """A stream in which every prefix has the share of each of the others, rounded to the nearest row.

    All rows stand in the order of their draw (`ranked`). The stream ends when `cot` is exhausted and its turn comes; of
    no chain of thought at all, the others share the stream. When one of the others is exhausted, `cot` takes its place.

    Args:
      others: rows, and their share of the stream.
      key: what a row was made of; one thing is taken once by all the others together.
    """
    plain = list(cot)[::-1]
    special = [list(rows)[::-1] for rows, _ in others]
    shares = [float(share or 0) for _, share in others]
    alone = not plain
    counts, used = [0] * len(special), set()
    for taken in itertools.count(1):
        for rows in special:
            while key and rows and key(rows[-1]) in used:
                rows.pop()
        there = [number for number, rows in enumerate(special) if rows]
        due = [number for number in there if alone or counts[number] + 1 <= nearest(shares[number], taken)]
        if due:
            number = max(due, key=lambda one: shares[one] * taken - counts[one])
            counts[number] += 1
            row = special[number].pop()
            used.add(key(row) if key else None)
            yield row
        elif plain:
            yield plain.pop()
        else:
            return


def drawn(pool: Pool, seed: int) -> list[Candidate]:
    """A pool's candidates in the order of a random draw, every prefix with the pool's share of right attempts."""
    rows = ranked(pool.candidates, lambda row: row.name, seed)
    if (share := pool.right_share) is None:
        return rows
    is_right = lambda row: row.attempt is not None and row.attempt.verdict is Verdict.RIGHT
    right, wrong = ([row for row in rows if is_right(row) is one] for one in (True, False))
    return list(mix(wrong, [(right, share)])) if 0 < share < 1 else right if share else wrong


def ranked(rows: Iterable[T], name: Callable[[T], str], seed: int) -> list[T]:
    """The rows in the order of a random draw."""
    return sorted(rows, key=lambda row: rank(seed, name(row)))


def nearest(share: float, count: int) -> int:
    """A share of `count`, rounded to the nearest row; halves round up."""
    return int(share * count + 0.5)


def cot_of(count: int, shares: Iterable[float]) -> int:
    """The chain of thought among the first `count` rows of a mix with these shares of others, which do not run out."""
    return count - sum(nearest(share, count) for share in shares)


def first_examples(stream: Iterable[T], count: int) -> list[T]:
    """The first `count` rows of a mix.

    Raises:
      UserError: the mix has fewer.
    """
    taken = [row for _, row in zip(range(count), stream)]
    if len(taken) < count:
        raise UserError(f"equal_examples={count}, but this mix ends after {len(taken)}; ask for fewer or add data")
    return taken


def first_tokens(stream: Iterable[T], count: int, size: Callable[[T], int], option: str = "equal_tokens") -> list[T]:
    """The longest prefix of a mix with at most `count` tokens.

    Args:
      size: the tokens of a row.
      option: that asks for so many, for the message.

    Raises:
      UserError: the mix has fewer tokens, or its first row more.
    """
    taken: list[T] = []
    total = 0
    for row in stream:
        if total + size(row) > count:
            if not taken:
                raise UserError(f"{option}={count}, but the first example alone has {size(row)}; ask for more")
            return taken
        total += size(row)
        taken.append(row)
    if total < count:
        raise UserError(f"{option}={count}, but this mix ends after {total}; ask for fewer or add data")
    return taken


def rank(seed: int, text: str) -> bytes:
    """The sort key of a random draw: a hash of seed and text, equal in every process."""
    return hashlib.sha256(f"{seed}/{text}".encode()).digest()


def _numbers(text: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(word for word in text if word[0].isdigit()))


def _ngrams(text: Sequence[str]) -> set[tuple[str, ...]]:
    return {tuple(text[i : i + NGRAM]) for i in range(len(text) - NGRAM + 1)}
