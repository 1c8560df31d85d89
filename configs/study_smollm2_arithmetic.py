"""Does learning from mistakes help SmolLM2-135M on generated arithmetic problems, which it cannot have seen?

python -m lema_jax.study --config=configs/study_smollm2_arithmetic.py                 # adapters
python -m lema_jax.study --config=configs/study_smollm2_arithmetic.py:full            # all weights
python -m lema_jax.study --config=configs/study_smollm2_arithmetic.py:doses           # shares of corrections
python -m lema_jax.study --config=configs/study_smollm2_arithmetic.py:base            # arms start as the paper's

The plan, fixed before any answer to a test question was seen:

- **Hypotheses.** H1: `lema` answers more of `arithmetic/test` right than `cot`, from as many examples about the same
  questions (the paper's claim). H2: what the corrections say, as chain of thought (`cot_plus_extracted`), helps more
  than the corrections in their own format. H3: neither holds on `arithmetic/ood`, whose templates are new.
- **Student**: SmolLM2-135M-Instruct, all of whose weights have made one pass over the gold rationales of 600 training
  questions; it makes one attempt at each of these.
- **Arms.** `cot`, `cot_part`, `cot_plus_extracted`, `lema`, `rft`, `inline`, `critique`. `cot` is a second look at the
  same gold rationales, and the others put their own examples in the place of 28 % of them.
- **Equal** are the examples: 480 about the same 600 questions, one pass, adapters at the paper's rate of 2e-4.
- **Seeds** 0 to 4, of the drawn mix, its order and the training; 0 to 2 for the shares 10 and 50 % (`doses`).
- **Order**, since hours may end before the jobs do: `cot` and `lema` with seeds 0 to 2, `cot_plus_extracted` with
  these, then the other arms and seeds. Only arms with the same seeds are compared.
- **Checkpoint**: the last; none is chosen by an accuracy.
- **Tests**: the first 500 questions of `test` and of `ood`, greedy, asked as the arms are trained.
- **Helps, hurts**: the p-value of `lema − cot` on `test`, corrected by Holm over all arms and tests, is below 0.05.
  Otherwise it cannot be told, and the difference that would have been found 4 times in 5 is given.

Changed before the start, from 64 attempts at training questions: the student was the released model itself, and its
own right attempts were chain of thought too. It answered 5 % right, 41 % were cut off at 256 tokens, and `rft` would
have had a fourth of its share. A student of 1,200 questions answered 48.8 % of 500 questions of `dev` right, and `cot`
57.0 % after 1,000 examples at 2e-4 in steps of 24. That size took two cores an hour for each two arms and seeds, so
examples, questions and steps were halved, and the first 500 questions of each test are asked instead of 1,000: they
come from a few dozen templates, which bound the interval more than their number does.

Changed after the start: `ood` had five templates, five clusters with which hardly any difference can be shown, and the
student was at its floor on them (3.4 %). It has twenty since, before an arm was asked any of its questions.

Added after the answers of `cot`, `cot_plus_extracted` and `lema` with seeds 0 to 2 were seen, and so no test of H1: in
`base` the arms start from the released model, all of whose weights they train at the student's rate, each on all of its
data for 80 steps (`lema` sees each of its examples about once, `cot` 1.7 times). The paper's arms started so: none had
seen the rationales before. An arm that goes on from the student has: the loss of its first step is 0.05 to 0.07 in
`cot` and 0.7 to 1.4 in `lema`, which may pay for what it learns with what it knew.
"""

import dataclasses

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.planning.config import Attempts, Mix, Pretraining, StudyConfig, Test
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig


def optimizer(learning_rate: float) -> OptimizerConfig:
    return OptimizerConfig(learning_rate=learning_rate, schedule="cosine", warmup_steps=6, clip_norm=1.0)


def training(learning_rate: float, **changes: object) -> TrainConfig:
    return TrainConfig(
        out="",
        data=DataConfig(batch_size=0, seq_len=384, examples_per_step=12),
        epochs=1,
        accumulation=0,  # a row at a time
        optimizer=optimizer(learning_rate),
        compute=Compute(scan_layers=False),
        checkpoint_every=20,
        **changes,  # type: ignore[arg-type]
    )


def lora() -> StudyConfig:
    return StudyConfig(
        out="runs/study_smollm2_arithmetic",
        task="arithmetic",
        pretraining=Pretraining(training(3e-4, init="models/smollm2"), questions=600),
        attempts=Attempts(questions=600, temperature=0.7, max_new_tokens=256),
        arms=("cot", "cot_part", "cot_plus_extracted", "lema", "rft", "inline", "critique"),
        seeds=(0, 1, 2, 3, 4),
        mix=Mix(amount=480, max_tokens=384, questions=600),
        training=training(2e-4, lora=LoraConfig(rank=64, alpha=16.0, dropout=0.05)),  # the paper's rate and adapters
        tests=(Test("arithmetic", "test", 500), Test("arithmetic", "ood", 500)),
        max_new_tokens=256,
        batch_size=64,
    )


def full() -> StudyConfig:
    config = lora()
    config.training = training(1e-4)
    return config


def doses() -> StudyConfig:
    config = lora()
    config.arms, config.seeds = ("cot", "lema@0.1", "lema", "lema@0.5"), (0, 1, 2)
    return config


def base() -> StudyConfig:
    config = lora()
    config.arms, config.seeds, config.arms_start = ("cot", "cot_plus_extracted", "lema"), (0, 1, 2), "base"
    config.mix = Mix(equal="steps", max_tokens=384, questions=600)
    config.training = dataclasses.replace(training(3e-4), epochs=0, steps=80)
    return config


def get_config(setting: str = "lora") -> StudyConfig:
    return {"lora": lora, "full": full, "doses": doses, "base": base}[setting]()
