"""Coverage of the nominal 95 % intervals of `report`: how often they hold the truth, over simulated studies.

    python -m tests.benchmarks.bench_coverage [--studies=2000] [--of=arms] [--seeds=1,3,5]
    python -m tests.benchmarks.bench_coverage --of=samples   (avg@k and pass@k of one model)
    python -m tests.benchmarks.bench_coverage --of=pairs     (one model on two tests, as GSM8K and GSM-Plus, or GSM1k)

A line a design: coverage of the difference (in brackets the mean half-width, in points), the share of p < 0.05 where
the arms are equally good, and coverage of an arm's accuracy. With one seed the truth is that of the two checkpoints,
which is what interval and test are about; last, how often that interval holds the recipes' difference.
"""

import argparse
import functools
import itertools
import time

import numpy as np

from lema_jax.evidence import clusters, crossed, samples, stats
from lema_jax.evidence.clusters import Clusters
from tests import simulated_studies
from tests.simulated_studies import Study

QUESTIONS, CLUSTER, ACCURACY, SEED_SD = (300, 1000), (1, 8), (0.3, 0.8), (0.0, 0.01, 0.02)
HEADER = "seeds  questions  a cluster  accuracy  seed sd   difference    false   an arm   recipes, one seed"


score = functools.cache(stats.paired_score)  # counts recur
mcnemar, wilson = functools.cache(stats.mcnemar), functools.cache(stats.wilson)


def compared(study: Study) -> tuple[stats.Interval, float]:
    """Interval and p of the difference, by the rule of `compare.compare`."""
    if len(study.baseline) == 1 and study.clusters is None:
        paired = stats.pair(study.baseline[0], study.other[0])
        return score(paired), mcnemar(paired)
    estimate = crossed.difference(study.baseline, study.other, study.clusters)
    return estimate.interval(), estimate.p


def accuracy(study: Study) -> stats.Interval:
    if len(study.baseline) == 1 and study.clusters is None:
        return wilson(int(study.baseline.sum()), study.baseline.size)
    return crossed.proportion(study.baseline, study.clusters)


def line(seeds: int, questions: int, cluster: int, base: float, seed_sd: float, studies: int) -> str:
    rng = np.random.default_rng((seeds, questions, cluster, int(10 * base), int(100 * seed_sd)))
    given = {"seeds": seeds, "questions": questions, "cluster": cluster, "accuracy": base, "seed_sd": seed_sd}
    equal_is_true = seeds > 1 or not seed_sd  # one seed an arm is two checkpoints, which differ where seeds do
    held, recipes, arm, half, false = 0, 0, 0, 0.0, 0
    for _ in range(studies):
        study = simulated_studies.study(rng, **given)
        interval, _ = compared(study)
        truth = study.effect if seeds > 1 else study.effect_of_seeds
        held += interval.low <= truth <= interval.high
        recipes += interval.low <= study.effect <= interval.high
        half += (interval.high - interval.low) / 2
        of_arm = accuracy(study)
        arm += of_arm.low <= (study.accuracies if seeds > 1 else study.of_seeds)[0] <= of_arm.high
        if equal_is_true:
            false += compared(simulated_studies.study(rng, **given, effect=0.0))[1] < stats.ALPHA
    shares = [100 * count / studies for count in (held, half, false, arm, recipes)]
    wrong = f"{shares[2]:7.1f}" if equal_is_true else "      –"
    last = f"{shares[4]:8.1f}" if seeds == 1 else ""
    numbers = f"{seeds:5d} {questions:10d} {cluster:10d} {base:9.1f} {100 * seed_sd:8.0f}"
    return f"{numbers}   {shares[0]:5.1f} ({shares[1]:4.1f}) {wrong} {shares[3]:8.1f} {last}"


def holds(interval: stats.Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def sampled_line(questions: int, cluster: int, k: int, base: float, studies: int) -> str:
    """Coverage of avg@k and of pass@k."""
    rng = np.random.default_rng((questions, cluster, k, int(10 * base)))
    average = passed = 0
    of = np.array([samples.pass_at(right, k, k) for right in range(k + 1)])
    for _ in range(studies):
        study = simulated_studies.sampled(rng, questions=questions, cluster=cluster, samples=k, accuracy=base)
        within = None if study.clusters is None else Clusters(study.clusters, "template")
        average += holds(clusters.accuracy_interval(study.right[None] / k, within, samples=k), study.accuracy)
        passed += holds(clusters.accuracy_interval(of[study.right][None], within, samples=2), study.passed)
    numbers = f"{questions:9d} {cluster:10d} {k:8d} {base:9.1f}"
    return f"{numbers} {100 * average / studies:8.1f} {100 * passed / studies:8.1f}"


def pair_line(seeds: int, changed: int, base: float, studies: int) -> str:
    """Coverage of the difference between two tests."""
    rng = np.random.default_rng((seeds, changed, int(10 * base)))
    held = 0
    for _ in range(studies):
        study = simulated_studies.pair(rng, seeds=seeds, changed=changed, accuracy=base)
        if changed:
            interval = crossed.shared(study.one, study.other, study.of_one, study.of_other).interval()
        else:
            of = [wilson(int(right.sum()), right.size) for right in (study.one, study.other)]
            interval = crossed.apart(float(study.one.mean()), of[0], float(study.other.mean()), of[1])
        held += holds(interval, study.effect)
    return f"{seeds:5d} {changed:8d} {base:9.1f} {100 * held / studies:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--of", choices=("arms", "samples", "pairs"), default="arms")
    parser.add_argument("--seeds", default="1,3,5")
    given = parser.parse_args()
    start = time.perf_counter()
    if given.of == "samples":
        print("questions  a cluster  samples  accuracy    avg@k   pass@k")
        for design in itertools.product((30, 304), CLUSTER, (4, 16), ACCURACY):
            if design[:2] != (30, 8):  # that is four clusters
                print(sampled_line(*design, given.studies), flush=True)
    elif given.of == "pairs":
        print("seeds  changed  accuracy   covers")
        for design in itertools.product((30, 300), (7, 1, 0), ACCURACY):
            print(pair_line(*design, given.studies), flush=True)
    else:
        print(HEADER)
        for seeds in map(int, given.seeds.split(",")):
            for design in itertools.product(QUESTIONS, CLUSTER, ACCURACY, SEED_SD):
                print(line(seeds, *design, given.studies), flush=True)
    print(f"{given.studies:,} studies a design, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
