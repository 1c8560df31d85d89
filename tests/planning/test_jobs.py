"""A study's jobs: their ids are what shapes them, and what is done is remembered."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from lema_jax import study_jobs
from lema_jax.errors import UserError
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.planning import config as configs
from lema_jax.planning import jobs
from lema_jax.planning.config import Evolution, Mix, StudyConfig, Teacher, Test
from lema_jax.planning.jobs import Board, Job, Outcome
from lema_jax.stage import Config
from tests import tiny
from tests.studies import small


def plan(config: StudyConfig) -> dict[str, Job]:
    """Its jobs by name."""
    return {job.name: job for job in study_jobs.compose(config)}


def changed(**changes: Any) -> set[str]:
    """The jobs of the small study that are other jobs after a change."""
    before, after = plan(small()), plan(small(**changes))
    return {name for name in before if name in after and before[name].id != after[name].id}


def of(*kinds: str) -> set[str]:
    return {name for name, job in plan(small()).items() if job.kind in kinds}


def test_a_job_stands_after_those_that_it_needs() -> None:
    seen: set[str] = set()
    for job in plan(small(arms=("cot", "cot_part", "lema@0.5"))).values():
        assert set(job.needs) <= seen
        seen.add(job.id)


def test_only_what_depends_on_a_change_is_another_job() -> None:
    everything = set(plan(small()))
    arms = {f"{kind} {arm} seed {seed}" for kind in ("data", "train") for arm in ("cot", "lema") for seed in (0, 1)}
    answers = {f"evaluate {arm} seed {seed} arithmetic/test" for arm in ("cot", "lema") for seed in (0, 1)}
    trainings = {name for name in arms if name.startswith("train")}
    of_lema = {name for name in arms | answers if "lema" in name}
    student = small().pretraining
    assert student is not None
    steps = dataclasses.replace(student, train=dataclasses.replace(student.train, steps=41))
    training = dataclasses.replace(small().training, accumulation=2)
    assert changed(pretraining=steps) == everything - {"data student"}
    assert changed(training=training) == trainings | answers
    assert changed(mix=Mix(amount=25, questions=100)) == arms | answers
    assert changed(mix=Mix(amount=24, questions=100, correction_share=0.3)) == of_lema
    assert changed(teacher=Teacher(cut_at_first_error=True)) == of_lema | {"correct corrections"}
    assert changed(max_new_tokens=47) == of("evaluate")
    assert changed(seeds=(1, 2), arms=("lema", "cot", "cot_part")) == set()


def test_a_student_is_trained_from_a_model_folder_and_named_by_its_weights(tmp_path: Path) -> None:
    data, how = tiny.data_set(tmp_path / "data"), small().pretraining
    assert how is not None

    def begun(folder: Path) -> dict[str, Job]:
        train = dataclasses.replace(how.train, model=None, init=str(folder))
        return plan(small(pretraining=dataclasses.replace(how, train=train)))

    first, other = (tiny.model_folder(tmp_path / f"{seed}", data, seed) for seed in (0, 1))
    moved = Path(shutil.copytree(first, tmp_path / "moved"))
    found = begun(first)
    assert (found["data student"].config.tokenizer, found["data student"].config.train_tokenizer) == (str(first), None)
    assert found["train student"].config.config.init == str(first)
    ids = {folder: {job.id for job in begun(folder).values()} for folder in (first, moved, other)}
    assert ids[first] == ids[moved]
    assert not ids[first] & ids[other]


@pytest.mark.parametrize(
    "changes",
    [
        {"out": "elsewhere"},
        {"data_dir": "/data"},
        {"batch_size": 3},
        {"baseline": "lema"},
        {"teacher": Teacher(concurrency=3, timeout_s=3.0)},
        {
            "training": dataclasses.replace(
                small().training, log_every=1, compute=Compute(remat="full", scan_layers=False)
            )
        },
    ],
)
def test_what_shapes_no_result_changes_no_job(changes: dict[str, Any]) -> None:
    assert changed(**changes) == set()


@pytest.mark.parametrize("own_attempts", [False, True])
def test_preference_arms_learn_from_pairs_made_of_the_samples_they_need(own_attempts: bool) -> None:
    mix = Mix(amount=24, questions=100, own_attempts=own_attempts)
    found = plan(small(arms=("cot", "preference", "preference_solutions"), mix=mix))
    named = {job.id: job.name for job in found.values()}
    needed = {
        arm: {named[id] for id in found[f"data {arm} seed 0"].needs} for arm in ("preference", "preference_solutions")
    }
    assert needed["preference"] == {"data student", "train student", "correct corrections"}
    assert needed["preference_solutions"] == {"data student", "train student", "sample attempts"}
    objective = lambda name: found[f"train {name}"].config.config.objective  # type: ignore[attr-defined]
    assert [objective(f"{arm} seed 0") for arm in ("cot", *needed)] == ["sft", "preference", "preference"]
    assert {name for name in plan(small(arms=("cot", "preference_solutions"))) if "corrections" in name} == set()


def test_a_configuration_that_was_written_and_read_has_the_same_jobs() -> None:
    config = small(training=dataclasses.replace(small().training, epochs=1), mix=Mix(amount=24, correction_share=1))
    again = configs.from_dict(json.loads(json.dumps(configs.as_dict(config))), "here")
    assert [job.id for job in study_jobs.compose(again)] == [job.id for job in study_jobs.compose(config)]


def test_tests_of_two_styles_are_two_jobs() -> None:
    names = plan(small(tests=(Test("arithmetic", "test", 12), Test("arithmetic", "test", 12, "few_shot"))))
    assert "evaluate lema seed 1 arithmetic/test+few_shot" in names
    assert len({job.id for job in names.values()}) == len(names)


def test_a_field_at_its_default_shapes_nothing() -> None:
    named = jobs.given(LlamaConfig(vocab_size=5), ())
    assert named == {"vocab_size": 5}
    assert jobs.given(LlamaConfig(vocab_size=5), ("vocab_size",)) == {}


@over(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=15))
def test_a_wave_needs_only_waves_before_it(needs: list[list[int]]) -> None:
    listed = [
        Job(str(number), "data", "", Config(), tuple(str(one) for one in some if one < number), "")
        for number, some in enumerate(needs)
    ]
    done: set[str] = set()
    for wave in jobs.waves(listed):
        assert wave
        assert all(set(job.needs) <= done for job in wave)
        done |= {job.id for job in wave}
    assert len(done) == len(listed)


def test_what_is_done_is_in_no_wave() -> None:
    listed = [Job("a", "data", "", Config(), (), ""), Job("b", "train", "", Config(), ("a",), "")]
    assert list(jobs.waves(listed[1:])) == [listed[1:]]


JOB = Job("ab12", "data", "data cot seed 0", Config(), (), "data/cot", arm="cot", seed=0)


def test_an_outcome_is_remembered(tmp_path: Path) -> None:
    board = Board(tmp_path)
    assert board.outcome(JOB).state == "missing"
    board.settle(JOB, Outcome("failed", 1.5, error="no disk"))
    assert board.outcome(JOB) == Outcome("failed", 1.5, error="no disk")
    (tmp_path / JOB.out).mkdir(parents=True)
    board.settle(JOB, Outcome("done", 2.0, 30, facts={"kept": 3}))
    assert Board(tmp_path).outcome(JOB) == Outcome("done", 2.0, 30, facts={"kept": 3})
    (tmp_path / JOB.out).rmdir()  # a user makes room
    assert not board.is_done(JOB)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"state": "done"}', "\x00"])
def test_a_damaged_record_is_of_a_job_that_is_not_done(tmp_path: Path, content: str) -> None:
    board = Board(tmp_path)
    board.settle(JOB, Outcome("done"))
    board.path(JOB, "json").write_text(content)
    assert board.outcome(JOB).state == "missing"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    assert Board(tmp_path / "new").read() is None
    assert Board(tmp_path).read() is None
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="holds something else than a study"):
        Board(tmp_path).read()
    with pytest.raises(UserError, match="is no folder"):
        Board(tmp_path / "notes.txt").read()
    for content, found in (("{", "is not JSON"), ("[]", "valid dictionary"), (json.dumps({"config": 1}), "remove it")):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(UserError, match=found):
            Board(tmp_path).read()


LATER = ("cot", "rft:2", "inline:0", "critique:0.3", "negatives", "mixed:lema@0.1,critique@0.1")


def test_a_job_of_every_arm_reads_the_rows_that_it_learns_from() -> None:
    made = plan(small(arms=LATER, seeds=(0,)))
    by_id = {job.id: job for job in made.values()}
    read = {arm: {by_id[id].kind for id in made[f"data {arm} seed 0"].needs} - {"data", "train"} for arm in LATER}
    assert read == {
        "cot": set(),
        "rft:2": {"sample"},
        "inline:0": {"correct"},
        "critique:0.3": {"critique"},
        "negatives": {"sample"},
        "mixed:lema@0.1,critique@0.1": {"correct", "critique"},
    }
    assert all("," not in job.out and ":" not in job.out for job in made.values())


@pytest.mark.parametrize("start", ["student", "last"])
def test_rounds_sample_from_the_model_before_and_take_as_many_examples_in_all(start: str) -> None:
    made = plan(small(arms=("cot", "lema"), seeds=(0,), rounds=3, round_start=start, mix=Mix(amount=25, questions=100)))
    by_id = {job.id: job for job in made.values()}
    name = "lema.3rounds seed 0"
    called = [f"{name} round 1", f"{name} round 2", name]
    counts: list[Any] = [made[f"data {one}"].config for one in called]
    assert [one.equal_examples for one in counts] == ([9, 17, 25] if start == "student" else [9, 8, 8])
    assert [one.skip_cot for one in counts] == ([0, 0, 0] if start == "student" else [0, 6, 12])
    for number in (2, 3):
        sampled = made[f"sample attempts {name} round {number}"]
        assert [by_id[id].name for id in sampled.needs] == [f"train {called[number - 2]}"]
        needed = {by_id[id].name for id in made[f"data {called[number - 1]}"].needs}
        assert f"correct corrections {name} round {number}" in needed
        assert ("correct corrections" in needed) is (start == "student")
        trained: Any = made[f"train {called[number - 1]}"].config
        assert ("lema.3rounds" in trained.config.init) is (start == "last")
    reported = [job.name for job in made.values() if job.arm == "lema.3rounds"]
    assert reported == [f"data {name}", f"train {name}", f"evaluate {name} arithmetic/test"]


def test_arms_that_start_from_the_base_model_learn_from_the_students_attempts(tmp_path: Path) -> None:
    base = str(tiny.model_folder(tmp_path / "base", tiny.data_set(tmp_path / "data")))
    student = small().pretraining
    assert student is not None
    student = dataclasses.replace(student, train=dataclasses.replace(student.train, model=None, init=base))
    usual, made = (
        plan(small(pretraining=student, seeds=(0,), rounds=2, round_start="last", arms_start=start))
        for start in ("student", "base")
    )
    same = {name for name in made if made[name].id == usual[name].id}
    assert same == {
        *("data student", "train student", "sample attempts", "correct corrections"),
        *("evaluate student seed 0 arithmetic/test", "data cot seed 0", "data lema seed 0"),
        "data lema.2rounds seed 0 round 1",
    }
    inits = {name: config.config.init for name, job in made.items() if job.kind == "train" for config in [job.config]}
    last = inits.pop("train lema.2rounds seed 0")
    assert last.endswith(made["train lema.2rounds seed 0 round 1"].out)
    assert set(inits.values()) == {base}
    assert {name for name in inits if made["train student"].id in made[name].needs} == set()


def test_new_questions_are_sampled_and_corrected_and_reach_every_arm_that_learns_from_them() -> None:
    teacher = Teacher("openai", model="m", base_url="http://localhost:9/v1")
    made = plan(small(teacher=teacher, evolution=Evolution(count=7), seeds=(0,), rounds=2))
    by_id = {job.id: job for job in made.values()}
    assert [by_id[id].name for id in made["evolve questions"].needs] == ["correct corrections"]
    sampled: Any = made["sample attempts evolved"].config
    assert str(sampled.questions.problems).endswith(made["evolve questions"].out)
    needed = {by_id[id].name for id in made["data lema.2rounds seed 0"].needs}
    assert {"correct corrections evolved", "correct corrections evolved lema.2rounds seed 0 round 2"} <= needed
    assert not any("evolved" in by_id[id].name for id in made["data cot seed 0"].needs)
