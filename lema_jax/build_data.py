"""Makes training data: chain of thought and corrections, filtered, mixed, tokenised.

Reads   a task's gold rationales; `sample`'s attempts (right ones become chain of thought); `correct`'s corrections.
Writes  --out: an ArrayRecord data set that TFDS and `train` read, with its tokenizer, its examples as text, and a card.

  python -m lema_jax.build_data --task=gsm8k --arm=lema --corrections=runs/corrections.jsonl \\
      --tokenizer=models/smollm2 --equal_examples=4000 --out=data/lema

A fair comparison builds two arms with the same --seed and --equal_examples (or --equal_tokens). Corrections then are
--correction_share of their arm, or less where they run out, and all the chain of thought beside them is in the other
arm too: the arms differ in nothing but what the corrections replace.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from lema_jax import cli, storage
from lema_jax.data import card, examples, exports
from lema_jax.data.build import Recipe, build
from lema_jax.data.encode import Limits
from lema_jax.errors import UserError
from lema_jax.tasks import last_number

_TASK = flags.DEFINE_string("task", None, "the task that the questions are of", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "a folder with the publishers' files (or set LEMA_DATA)")
_ARM = flags.DEFINE_enum("arm", "cot", list(examples.ARMS), "what is trained on besides chain of thought")
_GOLD_RATIONALES = flags.DEFINE_bool("gold_rationales", True, "take the training split's gold rationales")
_LIMIT = flags.DEFINE_integer(
    "limit", None, "gold rationales of the first so many training questions only", lower_bound=1
)
_ATTEMPTS = cli.define_paths("attempts", [], "files made by sample; their right attempts are chain of thought")
_READ_LAST_NUMBER = flags.DEFINE_bool(last_number.FLAG, False, last_number.HELP)
_CORRECTIONS = cli.define_paths("corrections", [], "files made by correct")
_TOKENIZER = flags.DEFINE_string("tokenizer", None, "a checkpoint, a data set, or a Hugging Face folder")
_TRAIN_TOKENIZER = flags.DEFINE_integer("train_tokenizer", None, "train a tokenizer with so many ids instead", 1, 2**20)
_OUT = flags.DEFINE_string("out", None, "the folder to make", required=True)
_MAX_PROMPT = flags.DEFINE_integer(
    "max_prompt", 512, "leave out an example with a longer prompt, in tokens with BOS", 1
)
_MAX_COMPLETION = flags.DEFINE_integer("max_completion", 512, "… or a longer completion, in tokens with EOS", 1)
_MAX_TOKENS = flags.DEFINE_integer("max_tokens", None, "… or longer in all", 1)
_EQUAL_EXAMPLES = flags.DEFINE_integer("equal_examples", None, "mix exactly so many examples", lower_bound=1)
_EQUAL_TOKENS = flags.DEFINE_integer("equal_tokens", None, "mix as many examples as have so many tokens", lower_bound=1)
_CORRECTION_SHARE = flags.DEFINE_float(
    "correction_share",
    0.28,
    "of an equalised mix (the paper's GSM8K data: 0.28); without one, all there is is taken",
    lower_bound=0,
    upper_bound=1,
)
_DEV_QUESTIONS = flags.DEFINE_integer(
    "dev_questions", 0, "hold so many training questions out, as dev/; none of them is trained on", lower_bound=0
)
_OVERLAP = flags.DEFINE_enum(
    "overlap", "refuse", ["refuse", "drop", "keep"], "what to do about training questions that give a test one away"
)
_EXPORT = flags.DEFINE_list("export", [], f"also write other trainers' forms: {', '.join(exports.FORMS)}")
_SEED = flags.DEFINE_integer("seed", 0, "of what is drawn: dev questions, the mix, its order", lower_bound=0)


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; lists are separated by commas, without spaces")
    if _CORRECTION_SHARE.present and _EQUAL_EXAMPLES.value is None and _EQUAL_TOKENS.value is None:
        raise UserError("--correction_share is of an equalised mix; give --equal_examples or --equal_tokens with it")
    made, new = build(_recipe(), storage.on_disk(_OUT.value))
    print(card.summary(made))
    print(f"wrote {_OUT.value}" if new else f"{_OUT.value} is there already, made of the same inputs; nothing to do")


def _corrections() -> list[str]:
    """The files of --corrections, none for --arm=cot: one set of flags can serve for all arms of a comparison.

    Raises:
      UserError: they are given without an arm, where it would not be seen that they are left out.
    """
    if _ARM.value == "cot" and _CORRECTIONS.value:
        if not _ARM.present:
            raise UserError("--corrections without --arm; --arm=lema learns from them, --arm=cot leaves them out")
        print("--arm=cot is chain of thought alone: the corrections are left out")
        return []
    return _CORRECTIONS.value


def _recipe() -> Recipe:
    return Recipe(
        task=_TASK.value,
        arm=_ARM.value,
        attempts=tuple(map(Path, _ATTEMPTS.value)),
        corrections=tuple(map(Path, _corrections())),
        data_dir=Path(_DATA_DIR.value) if _DATA_DIR.value else None,
        read_last_number=_READ_LAST_NUMBER.value,
        gold_rationales=_GOLD_RATIONALES.value,
        limit=_LIMIT.value,
        tokenizer=Path(_TOKENIZER.value) if _TOKENIZER.value else None,
        train_tokenizer=_TRAIN_TOKENIZER.value,
        limits=Limits(_MAX_PROMPT.value, _MAX_COMPLETION.value, _MAX_TOKENS.value),
        equal_examples=_EQUAL_EXAMPLES.value,
        equal_tokens=_EQUAL_TOKENS.value,
        correction_share=_CORRECTION_SHARE.value,
        dev_questions=_DEV_QUESTIONS.value,
        overlap=_OVERLAP.value,
        export=tuple(_EXPORT.value),
        seed=_SEED.value,
    )


if __name__ == "__main__":
    cli.run(main, out=lambda: _OUT.value)
