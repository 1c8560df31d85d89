"""Files that the tools around lm-evaluation-harness find and read."""

import hashlib
import json
import re

import pytest

from lema_jax.evidence import harness
from lema_jax.evidence.summary import summarize
from tests import made_runs


@pytest.fixture
def rows():
    return made_runs.predictions("rwut" * 5)


def test_files_have_the_harness_names_and_are_replaced(rows, tmp_path):
    harness.write(tmp_path, rows)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert re.fullmatch(r"results_[\d-]+T[\d.-]+\.json", names[0])
    assert re.fullmatch(r"samples_arithmetic_[\d-]+T[\d.-]+\.jsonl", names[1])
    harness.write(tmp_path, rows[:4])
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert len((tmp_path / names[1]).read_text().splitlines()) == 4


def test_samples_hold_prompt_answer_and_metric(rows):
    samples = harness.samples(rows)
    assert [sample["doc_id"] for sample in samples] == list(range(20))
    right, wrong, unparsed, truncated = samples[:4]
    assert [s["exact_match"] for s in samples[:4]] == [1.0, 0.0, 0.0, 0.0]
    assert [s["verdict"] for s in samples[:4]] == ["right", "wrong", "unparsed", "truncated"]
    assert right["arguments"]["gen_args_0"]["arg_0"] == rows[0].prompt
    assert right["resps"] == [[rows[0].text]]
    assert (right["filtered_resps"], unparsed["filtered_resps"]) == (["1"], [""])
    assert wrong["prompt_hash"] == hashlib.sha256(rows[1].prompt.encode()).hexdigest()
    assert truncated["doc"]["question"] == rows[3].problem.question
    json.dumps(samples)


def test_results_agree_with_the_samples_and_with_the_summary(rows):
    results = harness.results(rows)
    found = results["results"]["arithmetic"]
    assert found["exact_match,none"] == summarize(rows).accuracy == 0.25
    assert found["exact_match_stderr,none"] == pytest.approx((0.25 * 0.75 / 19) ** 0.5)
    assert results["n-samples"]["arithmetic"]["effective"] == 20
    metric = results["configs"]["arithmetic"]["metric_list"][0]["metric"]
    assert all(metric in sample for sample in harness.samples(rows))


def test_the_authors_verdict_stands_beside_ours_where_it_was_asked(rows):
    judged = [row.model_copy(update={"paper": number < 15}) for number, row in enumerate(rows)]
    assert [sample["paper"] for sample in harness.samples(judged)] == [1.0] * 15 + [0.0] * 5
    found = harness.results(judged)["results"]["arithmetic"]
    assert (found["exact_match,none"], found["paper,none"]) == (0.25, 0.75)
    assert summarize(judged).paper == 0.75
    half = [*judged[:10], *rows[10:]]
    assert summarize(half).paper is None
    assert "paper,none" not in harness.results(half)["results"]["arithmetic"]


def test_worked_examples_are_counted(rows):
    asked = "Solve.\n\nQuestion: 1?\nAnswer: 1.\n\nQuestion: 2?\nAnswer: 2.\n\nQuestion: 3?\nAnswer:"
    few = [row.model_copy(update={"prompt": asked, "prompt_style": "few_shot"}) for row in rows]
    assert harness.results(few)["n-shot"] == {"arithmetic": 2}
    assert harness.results(rows)["n-shot"] == {"arithmetic": 0}


def test_a_file_of_ones_own_goes_by_its_name(rows, tmp_path):
    own = [row.problem.model_copy(update={"task": "jsonl:some/where/exam.jsonl"}) for row in rows]
    harness.write(tmp_path, [row.model_copy(update={"problem": problem}) for row, problem in zip(rows, own)])
    assert len(list(tmp_path.glob("samples_exam_*.jsonl"))) == 1
