"""Questions of one origin are one cluster."""

import numpy as np
import pytest

from lema_jax.evidence import clusters
from lema_jax.tasks import arithmetic
from tests import made_runs


def problems(*metas):
    return [made_runs.problem(number, meta=meta) for number, meta in enumerate(metas)]


def test_questions_of_one_seed_or_template_are_one_cluster():
    found = clusters.find(problems({"seed": "a"}, {"template": "a"}, {"seed_question": "a"}, {"template": "a"}, {}))
    assert found.of.tolist() == [0, 1, 0, 1, 2]
    assert (found.count, found.by) == (3, "seed question or template")
    assert str(found) == "3 clusters of questions of one seed question or template"


@pytest.mark.parametrize("metas", [[{}, {}], [{"steps": 2}] * 3, [{"seed": "a"}, {"seed": "b"}], [{"seed": "a"}] * 2])
def test_no_clusters_where_all_questions_stand_alone_or_all_are_of_one(metas):
    assert clusters.find(problems(*metas)) is None


def test_a_part_has_the_clusters_of_its_questions():
    found = clusters.find(problems(*({"seed": of} for of in "aabbc")))
    assert found.part(np.array([True, False, True, True, True])).of.tolist() == [0, 1, 1, 2]
    assert found.part(np.array([True, True, False, False, False])) is None


def test_arithmetic_questions_are_clustered_by_template():
    assert clusters.find(arithmetic.load("ood")).count == len(arithmetic.HELD_OUT)
