"""Does learning from mistakes help SmolLM2-135M-Instruct on generated arithmetic problems, which it cannot have seen?

python -m lema_jax.study --config=configs/study_smollm2_arithmetic.py --config.student=models/smollm2

The plan, fixed before any answer to a test question was seen:

- **Hypotheses.** H1: `lema` answers more of `arithmetic/test` right than `cot`, from as many examples about the same
  questions (the paper's claim). H2: what the corrections say, as chain of thought (`cot_plus_extracted`), helps more
  than the corrections in their own format. H3: neither holds on `arithmetic/ood`, whose templates are new.
- **Arms.** `cot`, `cot_part`, `cot_plus_extracted`, `lema`; the arms that come later (`rft`, `inline`, `critique`) are
  added as they are, and change none of the jobs of these.
- **Equal** are the examples: 1,500 about the same 2,500 training questions, one pass, LoRA of rank 64.
- **Seeds** 0 to 4, of the drawn mix, its order and the training.
- **Checkpoint**: the last. None is chosen by any accuracy.
- **Tests**: the first 1,000 questions of `test` and all 1,000 of `ood`, greedy, asked as the arms are trained.
- **Helps, hurts**: the p-value of `lema − cot` on `test`, corrected by Holm over all arms and tests, is below 0.05.
  Otherwise it cannot be told, and the difference that would have been found 4 times in 5 is given.

Changes after the start: none.
"""

from lema_jax.data.batches import DataConfig
from lema_jax.model.config import Compute, LoraConfig
from lema_jax.planning.config import Attempts, Mix, StudyConfig, Test
from lema_jax.training.config import TrainConfig
from lema_jax.training.optimizer import OptimizerConfig


def get_config() -> StudyConfig:
    training = TrainConfig(
        out="",
        data=DataConfig(batch_size=0, seq_len=512, examples_per_step=24),
        epochs=1,
        lora=LoraConfig(rank=64, alpha=16.0, dropout=0.05),  # the paper's
        optimizer=OptimizerConfig(learning_rate=2e-4, clip_norm=0.3),  # the paper's below 34B
        compute=Compute(scan_layers=False),
        checkpoint_every=10,
    )
    return StudyConfig(
        out="runs/study_smollm2_arithmetic",
        task="arithmetic",
        student="models/smollm2",
        attempts=Attempts(questions=2500, temperature=0.7, max_new_tokens=256),
        arms=("cot", "cot_part", "cot_plus_extracted", "lema"),
        seeds=(0, 1, 2, 3, 4),
        mix=Mix(amount=1500, max_tokens=512, questions=2500, own_attempts=True),
        training=training,
        tests=(Test("arithmetic", "test", 1000), Test("arithmetic", "ood")),
        max_new_tokens=256,
        batch_size=64,
    )
