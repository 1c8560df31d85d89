"""The report of a study says the numbers, whichever way they fall, of as much as is there."""

import dataclasses
import functools
import json
import re

import pytest

from lema_jax.data import card
from lema_jax.errors import UserError
from lema_jax.evidence import compare, runs, stats, study
from lema_jax.evidence.table import Reads
from lema_jax.records import Verdict
from tests import made_runs
from tests.html_page import Parsed

load = functools.partial(study.load, funnel=card.funnel)
SHORT = "missing: own examples"

ARMS = {"cot": 0.5, "cot_part": 0.48, "cot_plus_extracted": 0.6, "lema": 0.35, "student": 0.3}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return load(made_runs.write_study(folder, ARMS, tests=("arithmetic/test", "arithmetic/test+chat")))


def edited(folder, **fields):
    path = folder / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def test_every_arm_is_compared_on_every_test_by_all_of_its_seeds(whole):
    tested = whole.tests["arithmetic/test"]
    assert whole.arms == list(tested.arms) == list(ARMS)
    assert [arm.seeds for arm in tested.arms.values()] == [3, 3, 3, 3, 1]
    assert list(tested.comparisons) == [arm for arm in ARMS if arm != "cot"]
    again = runs.align(
        [runs.load(whole.folder / f"evaluate/{arm}-arithmetic-test", "x") for arm in ("cot-s0", "lema-s2")]
    )
    right = [prediction.verdict is Verdict.RIGHT for prediction in again[1].predictions]
    assert tested.arms["lema"].right[2].tolist() == right


def test_holm_corrects_for_all_arms_on_all_tests(whole):
    assert len(whole.adjusted) == 8
    p_values = {(test, arm): one.p for test, of in whole.tests.items() for arm, one in of.comparisons.items()}
    assert list(whole.adjusted.values()) == stats.holm(list(p_values.values()))
    assert max(whole.adjusted[key] / p for key, p in p_values.items()) == pytest.approx(8)


def test_comparisons_that_are_not_finished_are_corrected_for(tmp_path):
    made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4, "rft": 0.5})
    content = json.loads((tmp_path / "study.json").read_text())
    there = [one for one in content["evaluations"] if one["arm"] != "rft"]
    found = load(edited(tmp_path, evaluations=there))
    (key,) = found.adjusted
    assert found.planned == 2
    assert found.adjusted[key] == pytest.approx(min(1, 2 * found.tests[key[0]].comparisons["lema"].p))
    assert "after Holm's correction for 2 comparisons" in study.headline(found)[0].text


def test_the_answers_are_not_kept_in_memory(whole):
    assert not any(arm.runs for tested in whole.tests.values() for arm in tested.arms.values())


def test_headline_of_a_loss(whole):
    answer, elsewhere = study.headline(whole)
    comparison = whole.tests["arithmetic/test"].comparisons["lema"]
    assert answer.reads is Reads.WORSE
    assert answer.text.startswith("Learning from mistakes hurts on arithmetic/test: of 100 questions, lema answers ")
    for number in (
        f"{-100 * comparison.difference:.1f} points fewer right than cot",
        f"{100 * comparison.interval.low:.1f}".replace("-", "−"),
        "after Holm's correction for 8 comparisons",
        "3 seeds of lema, 3 seeds of cot",
    ):
        assert number in answer.text
    assert elsewhere.text.startswith("Elsewhere: arithmetic/test+chat worse, −")


@pytest.mark.parametrize(
    ("lema", "reads", "said"),
    [
        (0.7, Reads.BETTER, "Learning from mistakes helps on arithmetic/test: of 100 questions, lema answers "),
        (
            0.5,
            Reads.UNCLEAR,
            "Learning from mistakes neither clearly helps nor clearly hurts on arithmetic/test: of 100 ",
        ),
    ],
)
def test_headline_of_a_gain_and_of_no_clear_difference(tmp_path, lema, reads, said):
    found = load(made_runs.write_study(tmp_path, {"cot": 0.5, "lema": lema}))
    (answer,) = study.headline(found)
    assert answer.reads is reads
    assert answer.text.startswith(said)
    comparison = found.tests["arithmetic/test"].comparisons["lema"]
    needed = f"A difference of {100 * comparison.detectable():.1f} points or more is found 4 times in 5 after the corr"
    assert (needed in answer.text) == (reads is Reads.UNCLEAR)


def test_the_difference_that_is_found_is_that_after_the_correction(tmp_path):
    """By the strictest of Holm's levels: else an adjusted p above 0.05 stands beside a smaller "found" difference."""
    found = load(made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.5, "rft": 0.5, "inline": 0.5}))
    comparison = found.tests["arithmetic/test"].comparisons["lema"]
    needed = comparison.detectable(0.05 / len(found.adjusted))
    assert needed > comparison.detectable()
    assert f"A difference of {100 * needed:.1f} points or more" in study.headline(found)[0].text


def test_equal_accuracies_are_said_to_be_equal(tmp_path):
    found = load(made_runs.write_study(tmp_path, {"cot": 1.0, "lema": 1.0}))
    assert "lema answers as many right as cot" in study.headline(found)[0].text


@pytest.mark.slow
def test_a_difference_that_only_the_correction_takes_away_is_unclear(tmp_path):
    """Of twenty arms like the baseline, the best has a p-value that would do alone."""
    rates = {"cot": 0.5, "lema": 0.51} | {f"arm{number}": 0.5 for number in range(20)}
    found = load(made_runs.write_study(tmp_path, rates, seeds=[0], questions=300))
    comparison = found.tests["arithmetic/test"].comparisons["lema"]
    assert comparison.significant
    assert found.adjusted["arithmetic/test", "lema"] > 0.05
    assert study.headline(found)[0].reads is Reads.UNCLEAR


def test_one_seed_is_about_two_checkpoints(tmp_path):
    found = load(made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.3}, seeds=[7]))
    assert found.tests["arithmetic/test"].comparisons["lema"].test is compare.StatTest.MCNEMAR
    assert "one seed of lema, one seed of cot" in study.headline(found)[0].text
    assert "With one seed of cot and lema this is about two checkpoints" in study.headline(found)[0].text


def test_one_seed_of_an_arm_is_about_that_checkpoint(tmp_path):
    """An unfinished study has more seeds of the first arm than of the others."""
    folder = made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.3}, seeds=[0, 1])
    content = json.loads((folder / "study.json").read_text())
    content["evaluations"] = [one for one in content["evaluations"] if (one["arm"], one["seed"]) != ("lema", 1)]
    (folder / "study.json").write_text(json.dumps(content))
    assert "With one seed of lema this is about that checkpoint" in study.headline(load(folder))[0].text


def test_an_arm_with_another_name_answers_for_itself(tmp_path):
    found = load(made_runs.write_study(tmp_path, {"cot": 0.5, "rft": 0.8}))
    assert study.headline(found)[0].text.startswith("rft helps on arithmetic/test")


def test_the_parts_of_a_difference_add_up_and_say_what_changes(whole):
    tested = whole.tests["arithmetic/test"]
    by_name = {one.name: comparison for one, comparison in tested.contrasts.items()}
    total = tested.comparisons["lema"].difference
    assert by_name["displacement"].difference + by_name["interference or help"].difference == pytest.approx(total)
    assert by_name["content"].difference + by_name["format"].difference == pytest.approx(total)
    said = [finding.text for finding in study.decomposition(whole)["arithmetic/test"]]
    size = f"{-100 * by_name['format'].difference:.1f} points"
    assert said[3].startswith(
        f"Format: to learn them in the format of corrections instead costs {size} (lema − cot_plus"
    )
    assert said[0].startswith("Displacement: whether it helps or hurts to train on fewer examples")
    assert list(whole.adjusted_contrasts) == [(test, name) for test in whole.tests for name in by_name]


def test_only_the_parts_whose_arms_are_there_are_said(tmp_path):
    found = load(made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4}))
    assert study.decomposition(found) == {}
    assert "made of" not in study.text(found)


@pytest.mark.slow
def test_shares_stand_in_their_order_with_the_baseline_and_the_share_measured(tmp_path):
    rates = {"cot": 0.5, "lema@0.5": 0.3, "lema": 0.4, "lema@0.1": 0.45}
    found = load(made_runs.write_study(tmp_path, rates))
    assert found.shares == {"lema": {"cot": 0.0, "lema@0.1": 0.1, "lema": 0.28, "lema@0.5": 0.5}}
    rows = study.shares_layout(found, "arithmetic/test", found.shares["lema"])
    assert [row[:2] for row in rows] == [("0 %", "cot"), ("10 %", "lema@0.1"), ("28 %", "lema"), ("50 %", "lema@0.5")]
    assert found.subject == "lema"
    assert "lema by its share, on arithmetic/test" in study.text(found)
    assert "Share of corrections" in study.html(found)


def test_a_study_without_named_shares_has_none(whole):
    assert whole.shares == {}


def test_cost_is_summed_by_kind_and_failures_are_named(tmp_path):
    jobs = [
        {"id": "1", "kind": "train", "name": "train cot seed 0", "state": "done", "seconds": 1800, "tokens": 5000},
        {
            "id": "2",
            "kind": "train",
            "name": "train cot seed 1",
            "state": "failed",
            "seconds": 1800,
            "error": "no\x1b[31m",
        },
        {"id": "3", "kind": "correct", "name": "correct", "state": "missing", "usd": None},
        {"id": "4", "kind": "correct", "name": "correct again", "state": "done", "usd": 1.25},
    ]
    found = load(made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4}, jobs=jobs))
    assert study.cost(found.manifest.jobs) == [
        ("train", "1", "1", "0", "1.00", "5,000", "0.00"),
        ("correct", "1", "0", "1", "0.00", "0", "1.25"),
        ("all", "2", "1", "1", "1.00", "5,000", "1.25"),
    ]
    text = study.text(found)
    assert "of 4 jobs 1 missing and 1 failed" in text
    assert "failed: train cot seed 1: no\\x1b[31m" in text
    page = " ".join(Parsed(study.html(found)).text)
    assert "train cot seed 1" in page
    assert "Missing and failed" in page


def test_data_are_counted_filter_by_filter_for_each_arm(whole):
    header, rows = study.funnel(whole)
    assert header == ("examples", "cot", "cot_part", "cot_plus_extracted", "lema")
    assert {row[0]: row[1:] for row in rows} == {
        "cot: duplicate": ("3", "3", "3", "3"),
        "trained on: cot": ("100", "100", "100", "72"),
        "trained on: correction": ("0", "0", "0", "28"),
    }


def test_an_arm_that_learnt_from_less_than_its_share_is_named(whole):
    short = dataclasses.replace(whole, funnels=whole.funnels | {"lema": whole.funnels["lema"] | {SHORT: 253}})
    assert "lema has 253 own examples fewer than its share" in study.text(short)
    assert "fewer than its share" not in study.text(whole)


def test_an_unfinished_study_shows_what_is_there(tmp_path):
    made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4, "rft": 0.5})
    content = json.loads((tmp_path / "study.json").read_text())
    there = [one for one in content["evaluations"] if one["arm"] != "rft" and (one["arm"], one["seed"]) != ("lema", 2)]
    found = load(edited(tmp_path, evaluations=there))
    assert [arm.seeds for arm in found.tests["arithmetic/test"].arms.values()] == [3, 2]
    only_lema = load(edited(tmp_path, evaluations=[one for one in there if one["arm"] == "lema"]))
    assert "No answer yet" in study.headline(only_lema)[0].text
    assert "lema" in study.text(only_lema)
    assert Parsed(study.html(only_lema)).text
    nothing = load(edited(tmp_path, evaluations=[], trainings=[], data=[], jobs=[]))
    assert study.text(nothing) == "No answer yet: no arm is evaluated beside the baseline cot on one test."
    assert Parsed(study.html(nothing)).text


def test_curves_and_cards_that_are_gone_are_named_and_stop_nothing(tmp_path):
    folder = made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4})
    (folder / "train/cot-1/metrics.jsonl").unlink()
    (folder / "data/lema-0/card.json").write_text("[]")
    (folder / "data/lema-1/card.json").unlink()
    found = load(folder)
    assert len(found.unread) == 3
    parts = ("train/cot-1/metrics.jsonl", "lema-0/card.json is no card", "lema-1 has no card.json")
    assert all(part in study.text(found) for part in parts)
    assert found.funnels["lema"]["trained on: correction"] == 28  # of the seed that has one
    assert "train/cot-1/metrics.jsonl" in " ".join(Parsed(study.html(found)).text)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"baseline": "x"}, "the baseline x is none of the arms cot, lema"),
        ({"arms": "cot"}, "arms: Input should be a valid list"),
        ({"jobs": [{"id": "1", "kind": "train", "name": "a", "state": "lost"}]}, "jobs.0.state"),
        ({"tests": ["math/test"]}, "is of the arm cot on arithmetic/test, which are not both in it"),
    ],
)
def test_a_malformed_study_is_one_line(tmp_path, fields, said):
    folder = edited(made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4}), **fields)
    with pytest.raises(UserError, match=r"study\.json") as raised:
        load(folder)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_no_study_and_broken_json_are_one_line(tmp_path):
    with pytest.raises(UserError, match="a folder that study made"):
        load(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        load(tmp_path)


def test_an_evaluation_listed_twice_or_gone_is_an_error(tmp_path):
    folder = made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4})
    content = json.loads((folder / "study.json").read_text())
    with pytest.raises(UserError, match="lists 2 evaluations of cot, seed 0, on arithmetic/test"):
        load(edited(folder, evaluations=[*content["evaluations"], content["evaluations"][0]]))
    edited(folder, evaluations=[{**content["evaluations"][0], "folder": "evaluate/gone"}])
    with pytest.raises(UserError, match=r"cannot read .*gone"):
        load(folder)


def test_prompts_that_differ_are_said(tmp_path):
    folder = made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4})
    for seed in range(3):
        place = folder / f"evaluate/lema-s{seed}-arithmetic-test"
        rows = [
            row.model_copy(update={"prompt": "?", "prompt_style": "chat"}) for row in runs.load(place, "x").predictions
        ]
        made_runs.write(place, rows)
    assert "lema's prompts differ from cot's (styles chat, paper)" in study.text(load(folder))


def test_the_page_has_every_part_a_ring_for_each_seed_and_words_beside_colours(whole):
    text = study.html(whole)
    parsed = Parsed(text)
    said = " ".join(parsed.text)
    for part in ("The answer", "arithmetic/test+chat", "What the difference is made of", "Training", "Data", "Cost"):
        assert part in said
    svg = re.findall(r"<svg.*?</svg>", text, re.DOTALL)[0]
    rings = re.findall(r'<use [^>]*style="fill-opacity: 0; stroke: var\(--series-(\d)\)', svg)
    assert [rings.count(str(arm)) for arm in range(5)] == [3, 3, 3, 3, 0]  # the student has no seeds
    classes = [a.get("class", "") for tag, a in parsed.tags if tag == "p"]
    assert classes.count("finding worse") == said.count("▼ worse") - 4  # two rows of two tables have the words too
    assert "finding loss" not in classes
    assert {item["data-kinds"] for item in parsed.items()} <= {"fixed", "broken", "both wrong"}
    assert parsed.items()


def test_the_page_is_sealed_and_escapes_what_it_shows(tmp_path):
    evil = "</p><script>alert(1)</script>"
    jobs = [{"id": "1", "kind": evil, "name": evil, "state": "failed", "error": evil}]
    folder = made_runs.write_study(tmp_path, {"cot": 0.5, "lema": 0.4}, jobs=jobs, task=evil)
    text = study.html(load(folder))
    parsed = Parsed(text)
    assert len([tag for tag, _ in parsed.tags if tag == "script"]) == 1
    assert any(evil in shown for shown in parsed.text)
    policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert not re.search(r"url\((?!#)", text)
