"""Preference pairs: of two steps after the same right ones, and of two whole solutions; and their token ids.

A pair is stored as one record, its two sequences one after the other, so that packing keeps both in one row.
"""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from lema_jax import tasks
from lema_jax.data import examples
from lema_jax.data.encode import Encoded, Limits, prefix_ids
from lema_jax.data.encode import encode as examples_alone
from lema_jax.errors import UserError
from lema_jax.records import Correction, Example, Pair, Problem, row_id
from lema_jax.tasks.cues import of_this_question
from lema_jax.tasks.steps import split_steps

_AT_A_TIME = 1_000  # pairs, see `encode`


def at_wrong_step(row: Correction) -> Pair:
    """The pair at an attempt's first wrong step: that step is rejected, the teacher's first corrected one chosen.

    Both follow the attempt's right steps, and end in a line break where another step comes next (step-wise DPO, arXiv
    2406.18629; 2406.14532). If the correction names no step, the pair is of whole answers.

    Args:
      row: complete (`examples.is_complete`).
    """
    corrected, problem = examples.corrected_steps(row), row.attempt.problem
    if row.step is None:
        return of_solutions(problem, "\n".join(corrected), of_this_question(row.attempt.text).strip(), row.teacher)
    tried = split_steps(row.attempt.text)
    prefix = "".join(f"{step}\n" for step in tried[: row.step - 1])
    chosen = prefix + corrected[0] + ("\n" if len(corrected) > 1 else "")
    rejected = prefix + tried[row.step - 1] + ("\n" if len(tried) > row.step else "")
    return _pair("step_pair", problem, row.teacher, prefix, chosen, rejected)


def of_solutions(problem: Problem, right: str, wrong: str, source: str) -> Pair:
    """The pair of a right and a wrong solution of one question; `source` wrote the right one."""
    return _pair("solution_pair", problem, source, "", right.strip(), wrong.strip())


def _pair(kind: str, problem: Problem, source: str, prefix: str, chosen: str, rejected: str) -> Pair:
    prompt = tasks.get(problem.task).prompt(problem)
    return Pair(
        id=row_id(kind=kind, prompt=prompt, completion=chosen, rejected=rejected),
        kind=kind,
        problem_id=problem.id,
        source=source,
        prompt=prompt,
        completion=chosen,
        prefix=prefix,
        rejected=rejected,
    )


def encode(rows: Sequence[Example], tokenizer: PreTrainedTokenizerFast, limits: Limits) -> Sequence[Encoded | None]:
    """Ids and loss weights of each pair; None for one over a limit. Examples that are no pairs: as `encode.encode`.

    Each sequence is the prompt's ids and those of a completion, tokenised in one, as a model writes it; there is loss
    after the prefix. `max_prompt` and `max_completion` bound each sequence, `max_tokens` both together.

    Raises:
      UserError: a pair whose prefix is not common to both completions, or that has the same one twice.
    """
    pairs = [row for row in rows if isinstance(row, Pair)]
    if not pairs:
        return examples_alone(rows, tokenizer, limits)
    start, eos = prefix_ids(tokenizer), [tokenizer.eos_token_id]

    def ids(texts: Iterable[str]) -> list[list[int]]:
        return tokenizer(list(texts), add_special_tokens=False).input_ids

    encoded: list[Encoded | None] = []
    for first in range(0, len(pairs), _AT_A_TIME):
        some = pairs[first : first + _AT_A_TIME]
        _require_common_prefixes(some)
        prompts, prefixes = ids(one.prompt for one in some), ids(one.prefix for one in some)
        chosen, rejected = ids(one.completion for one in some), ids(one.rejected for one in some)
        for row, prompt, prefix, *both in zip(some, prompts, prefixes, chosen, rejected):
            completions = [
                own if text.endswith("\n") else own + eos for own, text in zip(both, (row.completion, row.rejected))
            ]
            # Not the prefix's length: a token may reach over its end.
            shared = itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(prefix, *completions))
            encoded.append(_join(start + prompt, completions, sum(1 for _ in shared), limits))
    return encoded


def _require_common_prefixes(pairs: Iterable[Pair]) -> None:
    for row in pairs:
        named = f"pair {row.id} of question {row.problem_id}"
        if strays := [name for name in ("completion", "rejected") if not getattr(row, name).startswith(row.prefix)]:
            raise UserError(
                f"{named}: its {' and its '.join(strays)} does not begin with the prefix {row.prefix[-60:]!r}; chosen "
                "and rejected steps must follow the same steps: correct the attempt again, or remove the row"
            )
        if row.completion == row.rejected:
            raise UserError(f"{named} prefers a text to itself; remove the row")


def _join(prompt: list[int], completions: list[list[int]], shared: int, limits: Limits) -> Encoded | None:
    sequences = [prompt + completion for completion in completions]
    longest, total = max(map(len, completions)), sum(map(len, sequences))
    allowed = (limits.max_prompt, limits.max_completion, limits.max_tokens)
    if any(limit is not None and size > limit for size, limit in zip((len(prompt), longest, total), allowed)):
        return None
    return Encoded(
        tokens=np.array([*itertools.chain(*sequences)], np.int32),
        weights=np.concatenate([np.arange(len(one)) >= len(prompt) + shared for one in sequences]).astype(np.uint8),
        chosen=len(sequences[0]),
    )
