"""What a study is said to take: by what it asks and who answers, and nothing is made up."""

import math

import pytest

from lema_jax import study_jobs
from lema_jax.planning import forecast
from lema_jax.planning.config import Evolution, StudyConfig, Teacher
from lema_jax.planning.jobs import Job, Outcome
from lema_jax.records import Problem
from lema_jax.stage import Config
from tests.studies import LLAMA, small

MISSING, DONE = Outcome("missing"), Outcome("done", 30.0)


def job(id: str, **changes: object) -> Job:
    return Job(id, "correct", "correct corrections", Config(), (), "correct/a.jsonl", work=10.0, **changes)  # type: ignore[arg-type]


def problems(question: str, rationale: str) -> list[Problem]:
    return [Problem(id="a", task="gsm8k", split="test", question=question, gold="1", rationale=rationale)]


def of(config: StudyConfig) -> dict[str, Job]:
    return {job.name: job for job in study_jobs.compose(config)}


def test_the_pace_of_an_endpoint_is_given_by_its_answers_alone() -> None:
    first, second = job("a", asks_endpoint=True), job("b", asks_endpoint=True)
    (kind,) = forecast.by_kind([first, second], {"a": MISSING, "b": MISSING})
    assert math.isnan(kind.each)
    assert math.isnan(kind.left)
    printed = forecast.text([kind])
    assert printed.count("unknown") == 2
    assert "0:00:00 and the endpoint's" in printed
    assert "formula" not in printed
    (kind,) = forecast.by_kind([first, second], {"a": DONE, "b": MISSING})
    assert (kind.each, kind.left, kind.measured) == (30, 30, True)
    assert "endpoint" not in forecast.text([kind])


def test_the_reference_teacher_has_a_formula() -> None:
    printed = forecast.text(forecast.by_kind([job("a")], {"a": MISSING}))
    assert "formula" in printed
    assert "unknown" not in printed


def test_jobs_that_ask_an_endpoint_are_known_and_counted_as_they_are_limited() -> None:
    chat = Teacher(kind="openai", model="m", limit=3, samples=2, temperature=0.7)
    studied = of(small(teacher=chat, arms=("cot", "lema", "critique"), evolution=Evolution(count=5)))
    asking = {name for name, job in studied.items() if job.asks_endpoint}
    assert asking == {name for name, job in studied.items() if job.kind in ("correct", "critique", "evolve")} != set()
    assert studied["correct corrections"].work == 3 * 2
    assert not any(job.asks_endpoint for job in of(small()).values())


@pytest.mark.parametrize("answered", ["short", "long"])
def test_answers_are_as_long_as_rationales_and_no_longer_than_allowed(answered: str) -> None:
    rationale = {"short": "1 + 1 = 2. " * 3, "long": "1 + 1 = 2. " * 300}[answered]
    read = forecast.read(problems("How many?", rationale))
    assert read.rationale == len(rationale) / 3
    flops = forecast.decoding_flops(LLAMA, 10, read, 64)
    given = forecast.decoding_flops(LLAMA, 10, forecast.read(problems("How many?", "x" * 3 * 64)), 64)
    assert flops < given if answered == "short" else flops == given


def test_without_rationales_answers_have_half_the_allowed_length() -> None:
    without, given = (forecast.read(problems("How many?", text)) for text in ("", "x" * 3 * 32))
    assert without.rationale == 0
    assert forecast.decoding_flops(LLAMA, 10, without, 64) == forecast.decoding_flops(LLAMA, 10, given, 64)


def test_longer_questions_take_longer() -> None:
    short, long = (forecast.read(problems("How many? " * times, "1 + 1 = 2")) for times in (1, 20))
    assert forecast.decoding_flops(LLAMA, 10, short, 64) < forecast.decoding_flops(LLAMA, 10, long, 64)
