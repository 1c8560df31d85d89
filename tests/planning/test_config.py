"""What a study's configuration refuses, and that it survives being written and read."""

import dataclasses
import json
from typing import Any

import pytest

from lema_jax.data.batches import DataConfig
from lema_jax.errors import UserError
from lema_jax.planning import config as configs
from lema_jax.planning.config import Evolution, Mix, Pretraining, Teacher, Test
from lema_jax.training.objectives import PreferenceConfig
from tests.studies import small

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"arms": ("cot", "lemma")}, "there is no arm 'lemma'"),
    ({"arms": ("cot", "lema", "lema")}, "config.arms: lema twice"),
    ({"arms": ("cot", "cot@0.1")}, "learns from none"),
    ({"arms": ()}, "is none of the arms"),
    ({"baseline": "rft"}, "config.baseline='rft' is none of the arms: cot, lema"),
    ({"seeds": ()}, "config.seeds=() must have one"),
    ({"seeds": (0, 1, 0)}, "config.seeds: 0 twice"),
    ({"seeds": (-1,)}, "must be whole numbers from 0"),
    ({"seeds": (0.5,)}, "must be whole numbers from 0"),
    ({"task": "gsm9k"}, "no task 'gsm9k'"),
    ({"tests": ()}, "config.tests=() must have one"),
    ({"tests": (Test("arithmetic", "tset"),)}, "arithmetic has no split 'tset'; it has train, dev, test, ood"),
    ({"tests": (Test("arithmetic"), Test("arithmetic"))}, "config.tests: arithmetic/test twice"),
    ({"tests": (Test("arithmetic", "train"),)}, "is what the arms learn from"),
    ({"tests": (Test("arithmetic", style="chatty"),)}, "must be one of paper"),
    ({"student": "models/a"}, "give either student"),
    ({"pretraining": None}, "give either student"),
    ({"pretraining": Pretraining(small().training)}, "config.pretraining.train: give either model"),
    ({"out": ""}, "set --config.out"),
    ({"mix": Mix(equal="rows", amount=3)}, "config.mix.equal='rows' must be one of examples, loss_tokens, steps"),
    ({"mix": Mix()}, "config.mix.amount=0 must say how many examples"),
    ({"mix": Mix(equal="steps")}, "needs training.steps"),
    ({"mix": Mix(amount=3, gold_rationales=False)}, "there is no chain of thought"),
    ({"mix": Mix(amount=3, correction_share=0.0)}, "config.mix.correction_share=0.0 must be above 0 and at most 1"),
    ({"mix": Mix(amount="3")}, "config.mix.amount='3' must be a whole number"),
    ({"teacher": Teacher(kind="openai")}, "config.teacher.model=''"),
    ({"teacher": Teacher(kind="gpt")}, "must be one of reference, openai"),
    ({"training": dataclasses.replace(small().training, accumulation=-1)}, "config.training.accumulation=-1 must be"),
    ({"training": dataclasses.replace(small().training, steps=3)}, "give one of steps, epochs and tokens"),
    (
        {"arms": ("cot", "corrections_first"), "training": dataclasses.replace(small().training, data=DataConfig())},
        "corrections_first keep an order; set training.data.examples_per_step",
    ),
    ({"arms": ("cot", "mixed:lema@0.1,inline")}, "must name a share for each part"),
    ({"rounds": 0}, "config.rounds=0 must be at least 1"),
    ({"rounds": 2, "arms": ("cot",)}, "config.rounds=2: no arm learns from attempts"),
    ({"rounds": 25}, "config.mix.amount=24 is below rounds=25"),
    ({"rounds": 2, "round_start": "base"}, "config.round_start='base' must be one of student, last"),
    ({"arms_start": "last"}, "config.arms_start='last' must be one of student, base"),
    (
        {"arms_start": "base"},
        "config.arms_start='base' trains what the student was made of; name it in pretraining.trai",
    ),
    ({"rounds": 2, "round_start": "last", "mix": Mix(equal="loss_tokens", amount=9)}, "set mix.equal='examples'"),
    ({"evolution": Evolution(count=3)}, "set teacher.kind='openai' and teacher.model"),
    ({"evolution": Evolution(temperature=0.0)}, "config.evolution.temperature=0.0 must be above 0"),
    (
        {"arms": ("cot", "preference_solutions")},
        "preference_solutions compare attempts at one question; set attempts.samp",
    ),
    (
        {
            "arms": ("cot", "preference"),
            "training": dataclasses.replace(small().training, preference=PreferenceConfig(reference="base")),
        },
        "config.training.preference.reference='base' is the model under adapters; set lora",
    ),
    ({"checkpoint": "best"}, "set mix.dev_questions"),
    ({"mix": Mix(amount=24, max_tokens=513)}, "mix.max_tokens=513 must be at most training.data.seq_len=512"),
    ({"batch_size": 0}, "config.batch_size=0 must be at least 1"),
]


@pytest.mark.parametrize(("changes", "found"), REFUSED, ids=[found for _, found in REFUSED])
def test_what_a_user_can_get_wrong(changes: dict[str, Any], found: str) -> None:
    assert found in "; ".join(small(**changes).problems())


def test_a_good_one_has_no_problem() -> None:
    assert small().problems() == []
    assert small(arms=("cot", "lema@0.1", "lema@0.5", "corrections_first")).problems() == []


def test_arms_on_a_command_line_are_separated_by_commas() -> None:
    config = small()
    config.arms = ("cot, lema@0.1",)  # what --config.arms=… gives
    assert config.arms == ("cot", "lema@0.1")


def test_prices_are_given_as_texts_or_numbers() -> None:
    teacher = Teacher("openai", model="m", usd_per_million=(2.5, 10))  # type: ignore[arg-type]
    assert teacher.usd_per_million == ("2.5", "10")
    assert teacher.asked()["endpoint"].price("m") == (2.5, 10.0)


def test_it_survives_being_written_and_read() -> None:
    config = small(teacher=Teacher("openai", model="m", max_cost_usd=3.5, usd_per_million=("1", "2")), seeds=(5,))
    assert configs.from_dict(json.loads(json.dumps(configs.as_dict(config))), "here") == config


@pytest.mark.parametrize("content", [None, [], {}, {"out": "a"}, {"out": 3, "task": "arithmetic"}])
def test_what_is_no_configuration_is_refused(content: object) -> None:
    with pytest.raises(UserError, match=r"^there/study.json has no configuration of a study: "):
        configs.from_dict(content, "there/study.json")


def test_a_test_is_named_by_its_style_where_that_is_not_the_arms_own() -> None:
    assert Test("gsm8k").name == "gsm8k/test"
    assert dataclasses.replace(Test("gsm8k"), style="chat").name == "gsm8k/test+chat"
