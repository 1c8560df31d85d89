"""Does learning from mistakes help Qwen2.5-Coder-0.5B-Instruct on GSM8K?

python -m lema_jax.study --config=configs/study_qwen_gsm8k.py --config.student=models/qwen0.5b
python -m lema_jax.study --config=configs/study_qwen_gsm8k.py:short --config.student=models/qwen0.5b  # two CPU cores

The plan, fixed before any answer to a test question was seen:

- **Hypotheses.** H1: `lema` answers more of GSM8K's test right than `cot`, from as many examples about the same
  questions (the paper's claim). H2: what the corrections say, as chain of thought (`cot_plus_extracted`), helps more
  than the corrections in their own format. H3: what holds on GSM8K holds, with its sign, on SVAMP.
- **Arms.** `cot`, `cot_plus_extracted`, `lema`; the arms that come later (`rft`, `inline`, `critique`) are added as
  they are, and change none of the jobs of these.
- **Equal** are the examples: 1,000 about the first 1,000 training questions, one pass, LoRA of rank 64.
- **Attempts**: two at each of these questions, asked by the model's own chat template; the reference teacher corrects
  the wrong ones.
- **Seeds** 0 to 2, of the drawn mix, its order and the training.
- **Checkpoint**: the last. None is chosen by any accuracy.
- **Tests**: all 1,319 questions of GSM8K's test and all 1,000 of SVAMP's, greedy, asked as the arms are trained.
- **Helps, hurts**: the p-value of `lema − cot` on GSM8K, corrected by Holm over all arms and tests, is below 0.05.
  Otherwise it cannot be told, and the difference that would have been found 4 times in 5 is given.

Changed before the start: all of this is some 42 hours of two CPU cores (`--plan`), so there it is `short`, of which no
answer had been seen either. The first 400 training questions are attempted once, an arm has 320 examples in 32 steps of
10, and the first 400 questions of GSM8K's test are asked. H1 and H2 are as above, over the arms and seeds that are
complete when hours end; seed 0 of `cot` and `lema` comes first, then that of `cot_plus_extracted`, then further seeds.
With one seed 7 points would be found 4 times in 5, so that a smaller effect will most likely not be told.
"""

import dataclasses

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.planning.config import Attempts, Mix, StudyConfig, Test
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig


def whole() -> StudyConfig:
    training = TrainConfig(
        out="",
        data=DataConfig(batch_size=0, seq_len=512, examples_per_step=20),
        epochs=1,
        accumulation=0,  # a row at a time
        lora=LoraConfig(rank=64, alpha=16.0, dropout=0.05),  # the paper's
        optimizer=OptimizerConfig(learning_rate=2e-4, clip_norm=0.3),  # the paper's below 34B
        compute=Compute(scan_layers=False, loss_chunk=64),
        checkpoint_every=10,
    )
    return StudyConfig(
        out="runs/study_qwen_gsm8k",
        task="gsm8k",
        student="models/qwen0.5b",
        attempts=Attempts(questions=1000, samples=2, temperature=0.7, max_new_tokens=320, prompt_style="chat"),
        arms=("cot", "cot_plus_extracted", "lema"),
        seeds=(0, 1, 2),
        mix=Mix(amount=1000, max_tokens=512, questions=1000, own_attempts=True),
        training=training,
        tests=(Test("gsm8k"), Test("svamp")),
        max_new_tokens=320,
        batch_size=32,
    )


def short() -> StudyConfig:
    config = whole()
    config.out = "runs/study_qwen_gsm8k_short"
    config.attempts = dataclasses.replace(config.attempts, questions=400, samples=1)
    config.mix = dataclasses.replace(config.mix, amount=320, questions=400)
    config.training = dataclasses.replace(
        config.training, data=dataclasses.replace(config.training.data, examples_per_step=10)
    )
    config.tests = (Test("gsm8k", "test", 400),)
    return config


def get_config(setting: str = "whole") -> StudyConfig:
    return {"whole": whole, "short": short}[setting]()
