"""ΔPPL: how much likelier a student finds right paths than wrong ones (the paper's diagnostic, Fig. 11)."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lema_jax.errors import UserError
from lema_jax.evidence import stats
from lema_jax.records import PathScore


@dataclass(frozen=True)
class DeltaPpl:
    """Means over the questions that have both a right and a wrong path; the others are `left_out`."""

    questions: int
    left_out: int
    right: float  # mean perplexity of right paths
    wrong: float
    difference: float  # wrong - right: the larger, the better the student separates them
    interval: stats.Interval


_MOST = 700.0  # nats a token, whose exponential is still a number


def delta_ppl(scores: Iterable[PathScore], *, seed: int = 0) -> DeltaPpl:
    """PPL(wrong | question) - PPL(right | question), with PPL = exp(nll / tokens).

    Paths of a kind to one question are averaged first, so that each question counts once; the 95 % interval is a
    bootstrap over questions.

    Raises:
      UserError: no question has both kinds, or a path has no tokens.
    """
    paths: dict[str, dict[bool, list[float]]] = defaultdict(lambda: {True: [], False: []})
    for score in scores:
        if score.nll is None:
            continue
        if score.tokens < 1:
            raise UserError(f"a path to question {score.problem_id} has no tokens; remove it")
        paths[score.problem_id][score.right].append(math.exp(min(score.nll / score.tokens, _MOST)))
    both = np.array([[np.mean(of[False]), np.mean(of[True])] for of in paths.values() if of[False] and of[True]])
    if len(both) < 2:  # of one question there is no interval
        raise UserError(
            f"{len(both) or 'none'} of {len(paths)} questions has both a right and a wrong path; sample more of each"
        )
    wrong, right = both.mean(axis=0).tolist()
    interval = stats.bootstrap_mean(both[:, 0] - both[:, 1], seed=seed)
    return DeltaPpl(len(both), len(paths) - len(both), right, wrong, wrong - right, interval)


def sentence(found: DeltaPpl, name: str) -> str:
    """ΔPPL with its interval and counts, in a sentence."""
    low, high = found.interval
    return (
        f"{name}: ΔPPL {found.difference:.3f}, 95 % interval {low:.3f} to {high:.3f} (perplexity of wrong paths "
        f"{found.wrong:.3f}, of right ones {found.right:.3f}; {found.questions:,} questions with both, "
        f"{found.left_out:,} without left out)"
    )
