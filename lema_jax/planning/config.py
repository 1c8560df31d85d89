"""The configuration of a study: plain dataclasses, built by a file in `configs/`, overridden by flags.

No `from __future__ import annotations` here: ml_collections reads the field types to parse an override.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pydantic

from lema_jax import ranges, tasks
from lema_jax.data import arms
from lema_jax.errors import UserError
from lema_jax.tasks import prompts
from lema_jax.teacher.chat_model import ChatModel
from lema_jax.teacher.endpoint import Endpoint
from lema_jax.training.config import TrainConfig

EQUAL = ("examples", "loss_tokens", "steps")
_MANY = 10**9


@dataclasses.dataclass
class Pretraining:
    """How a student is made: random weights, or a model folder's, learn chain of thought of the study's task.

    Attributes:
      train: its training, of `model` or from `init`; the study fills in `out` and `data.path`.
      tokenizer_ids: the size of the tokenizer of random weights, which is trained on the same examples.
      questions: the first so many training questions; 0 for all.
    """

    train: TrainConfig
    tokenizer_ids: int = ranges.within(1536, 1, 2**20)
    questions: int = ranges.within(0, 0, _MANY)


@dataclasses.dataclass
class Attempts:
    """The student's attempts, of which the wrong ones are corrected.

    Attributes:
      questions: the first so many training questions; 0 for all.
    """

    questions: int = ranges.within(0, 0, _MANY)
    samples: int = ranges.within(1, 1, 10**5)
    temperature: float = ranges.within(0.7, 0, 100)
    top_p: float = ranges.within(1.0, 0, 1)
    seed: int = ranges.within(0, 0, 2**32 - 1)
    max_new_tokens: int = ranges.within(512, 1, 2**20)
    prompt_style: str = "paper"


@dataclasses.dataclass
class Teacher:
    """Who corrects; fields but `kind`, `limit` and `cut_at_first_error` are of a chat teacher, as `correct`'s flags.

    `max_cost_usd` bounds each job that asks the teacher: corrections, critiques and new questions, in each round.
    """

    kind: str = "reference"  # or openai
    limit: int = ranges.within(0, 0, _MANY)  # wrong attempts that are corrected, drawn at random; 0 for all
    cut_at_first_error: bool = False
    model: str = ""
    base_url: str = ""
    temperature: float = ranges.within(0.0, 0, 100)
    max_tokens: int = ranges.within(1024, 1, 2**20)
    samples: int = ranges.within(1, 1, 10**5)
    concurrency: int = ranges.within(32, 1, 10**5)
    timeout_s: float = ranges.within(300.0, 0, 10**6, above=True)
    max_cost_usd: float | None = ranges.within(None, 0, 1e9)
    usd_per_million: tuple[str, ...] = ()
    release_bookings: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "usd_per_million" and isinstance(value, tuple):  # numbers too
            value = tuple(map(str, value))
        object.__setattr__(self, name, value)

    def asked(self) -> dict[str, Any]:
        """The options of `correct` that are of a chat teacher; none for another."""
        if self.kind != "openai":
            return {}
        endpoint = Endpoint(
            base_url=self.base_url or None,
            concurrency=self.concurrency,
            timeout_s=self.timeout_s,
            usd_per_million=self.usd_per_million,
            release_bookings=self.release_bookings,
            max_cost_usd=math.inf if self.max_cost_usd is None else self.max_cost_usd,
        )
        chat = ChatModel(model=self.model, temperature=self.temperature, max_tokens=self.max_tokens)
        return {"samples": self.samples, "chat": chat, "endpoint": endpoint}

    def shaping(self) -> dict[str, Any]:
        """What shapes the corrections."""
        names = ["kind", "limit", "cut_at_first_error"]
        if self.kind == "openai":
            names += ["model", "base_url", "temperature", "max_tokens", "samples"]
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass
class Evolution:
    """New questions from those that the student got wrong, written and answered by the chat teacher (`evolve`).

    Attributes:
      count: seed questions drawn; 0 for no new questions.
      random_seeds: draw them from all training questions instead, the paper's control.
      temperature: of the chat teacher, above 0: three answers are to agree.
    """

    count: int = ranges.within(0, 0, 10**7)
    random_seeds: bool = False
    seed: int = ranges.within(0, 0, 2**32 - 1)
    temperature: float = ranges.within(0.7, 0, 100, above=True)


@dataclasses.dataclass
class Mix:
    """The training data of each arm.

    Attributes:
      equal: what the arms have as many of: examples, loss_tokens (tokens with loss) or steps. With steps each arm takes
        all the data that it has.
      amount: how many examples or tokens with loss.
      correction_share: share of an arm's own examples, such as corrections, where its name gives none.
      questions: gold rationales of the first so many training questions; 0 for all.
      gold_rationales, own_attempts: what is chain of thought: gold rationales, the student's own right attempts.
      max_tokens: the longest example; 0 for no limit.
      dev_questions: training questions held out to choose a checkpoint.
      overlap: what to do about training questions that give a test one away; see build_data.
    """

    equal: str = "examples"
    amount: int = ranges.within(0, 0, 10**15)
    correction_share: float = ranges.within(0.28, 0, 1, above=True)
    questions: int = ranges.within(0, 0, _MANY)
    gold_rationales: bool = True
    own_attempts: bool = False
    max_tokens: int = ranges.within(0, 0, 2**24)
    dev_questions: int = ranges.within(0, 0, 10**6)
    overlap: str = "drop"


@dataclasses.dataclass
class Test:
    """Questions that every arm answers. `questions`: the first so many of the split; 0 for all."""

    __test__ = False  # not pytest's

    task: str
    split: str = "test"
    questions: int = ranges.within(0, 0, _MANY)
    style: str = "paper"

    @property
    def name(self) -> str:
        """`task/split`, with `+style` where the style is not the one that arms are trained in."""
        return f"{self.task}/{self.split}" + (f"+{self.style}" if self.style != "paper" else "")


@dataclasses.dataclass
class StudyConfig:
    """A comparison of arms, each trained with several seeds from one student.

    Attributes:
      out: the study's folder.
      task: whose training questions the arms learn from.
      student: a model folder of `convert` or `train`; or give `pretraining`.
      pretraining: how the student is made instead.
      data_dir: folder with the publishers' files; by default the variable LEMA_DATA.
      arms_start: what each arm trains: the student; or the base model, from which `pretraining` made the student, as in
        the paper, whose models had not been fine-tuned before. The attempts are the student's.
      arms: rows of `lema_jax.data.arms`, such as lema, or lema@0.1 with a share of corrections of its own.
      rounds: above 1, each arm that learns from attempts has a second run, named `lema.3rounds`: as many times attempts
        are sampled from the last round's model, corrected, and trained on; the examples are as many in all.
      round_start: what each round trains: "student", what arms start from, on the rows of all rounds so far; or "last",
        the last round's model, on the new ones.
      seeds: of the drawn data, its order, and training; one training run for each arm and seed.
      baseline: the arm that the others are compared with.
      training: of each arm; the study fills in `out`, `init`, `data.path` and the seeds.
      tests: what every arm and the student answer.
      max_new_tokens, batch_size, dtype: how they answer, and how attempts are sampled.
      checkpoint: which one answers: the last, or the best on dev.
    """

    out: str
    task: str
    training: TrainConfig
    tests: tuple[Test, ...]
    student: str = ""
    pretraining: Pretraining | None = None
    data_dir: str = ""
    arms: tuple[str, ...] = ("cot", "cot_part", "cot_plus_extracted", "lema")
    seeds: tuple[int, ...] = (0, 1, 2)
    baseline: str = "cot"
    arms_start: str = "student"
    attempts: Attempts = dataclasses.field(default_factory=Attempts)
    teacher: Teacher = dataclasses.field(default_factory=Teacher)
    evolution: Evolution = dataclasses.field(default_factory=Evolution)
    mix: Mix = dataclasses.field(default_factory=Mix)
    rounds: int = ranges.within(1, 1, 100)
    round_start: str = "student"
    max_new_tokens: int = ranges.within(512, 1, 2**20)
    batch_size: int = ranges.within(32, 1, 2**16)
    dtype: str = "float32"
    checkpoint: str = "last"

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "arms" and isinstance(value, tuple):  # --config.arms=cot,lema is read as one text
            value = arms.listed(value)
        object.__setattr__(self, name, value)

    @property
    def compared(self) -> dict[str, tuple[str, int]]:
        """The arms that are trained, by name: the row that each is of, and its rounds."""
        found = {name: (name, 1) for name in self.arms}
        if self.rounds > 1:
            found |= {f"{name}.{self.rounds}rounds": (name, self.rounds) for name in self.arms if arms.own(name)}
        return found

    @property
    def own_tests(self) -> tuple[str, ...]:
        """The users' own tasks that are tested on."""
        return tuple(dict.fromkeys(test.task for test in self.tests if test.task.startswith(tasks.OWN)))

    def problems(self) -> list[str]:
        """Every field of the wrong type or out of range, and every broken rule between fields."""
        parts: dict[str, Any] = {"": self, "attempts.": self.attempts, "teacher.": self.teacher, "mix.": self.mix}
        parts["evolution."] = self.evolution
        parts |= {"pretraining.": self.pretraining} if self.pretraining else {}
        parts |= {f"tests[{number}].": test for number, test in enumerate(self.tests)}
        found = [f"config.{prefix}{problem}" for prefix, part in parts.items() for problem in ranges.problems(part)]
        return found or [f"config.{problem}" for problem in self._relations()]

    def _relations(self) -> Iterator[str]:
        if not self.out:
            yield "out='' must name a folder; set --config.out"
        if bool(self.student) == (self.pretraining is not None):
            yield f"student={self.student!r}: give either student (a model folder) or pretraining, not both"
        if self.pretraining and bool(self.pretraining.train.init) == (self.pretraining.train.model is not None):
            yield "pretraining.train: give either model (random weights) or init (a model folder)"
        if self.arms_start == "base" and not (self.pretraining and self.pretraining.train.init):
            yield "arms_start='base' trains what the student was made of; name it in pretraining.train.init"
        unknown = list(self._unknown())
        yield from unknown
        if any(one.startswith("arms: ") for one in unknown):
            return  # what follows reads the arms
        yield from self._repeated()
        of_pairs = [name for name in self.arms if arms.row(name).pairs]
        if of_pairs and self.attempts.samples < 2 and all(arms.row(name).example is None for name in of_pairs):
            yield f"arms: {', '.join(of_pairs)} compare attempts at one question; set attempts.samples to 2 or more"
        trained = {"training": dataclasses.replace(self.training, objective="preference" if of_pairs else "sft")}
        trained |= {"pretraining.train": self.pretraining.train} if self.pretraining else {}
        for name, config in trained.items():
            yield from (f"{name}.{one}" for one in config.problems() if not one.startswith("data.path"))
        data = self.training.data
        first = [name for name in self.arms if arms.row(name).first]
        if first and data.packing and not data.examples_per_step:
            yield f"arms: {', '.join(first)} keep an order; set training.data.examples_per_step, or packing=False"
        lengths = (self.training.steps, self.training.epochs, self.training.tokens)
        if sum(value > 0 for value in lengths) != 1:
            yield "training: give one of steps, epochs and tokens"
        if not self.seeds:
            yield "seeds=() must have one seed or more"
        elif not all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in self.seeds):
            yield f"seeds={self.seeds} must be whole numbers from 0 to 2**32 - 1"
        if not self.tests:
            yield "tests=() must have one test or more"
        if self.baseline not in self.arms:
            yield f"baseline={self.baseline!r} is none of the arms: {', '.join(self.arms)}"
        if self.mix.equal != "steps" and not self.mix.amount:
            yield f"mix.amount=0 must say how many {self.mix.equal} each arm has; or set mix.equal='steps'"
        if self.mix.max_tokens > self.training.data.seq_len:
            length = f"training.data.seq_len={self.training.data.seq_len}"
            yield f"mix.max_tokens={self.mix.max_tokens} must be at most {length}: longer examples fit in no row"
        if self.mix.equal == "steps":
            if not self.training.steps:
                yield "mix.equal='steps' needs training.steps, which all arms take"
            if shared := [name for name in self.arms if "@" in name]:
                yield f"arms: {', '.join(shared)} name a share of a mix; set mix.equal to examples or loss_tokens"
        yield from self._sources()
        if not (self.mix.gold_rationales or self.mix.own_attempts):
            yield "mix: there is no chain of thought; set gold_rationales or own_attempts"
        if self.teacher.kind == "openai" and not self.teacher.model:
            yield "teacher.model='' must name the chat model of teacher.kind='openai'"
        if self.checkpoint == "best" and not self.mix.dev_questions:
            yield "checkpoint='best' is the best on dev; set mix.dev_questions"

    def _sources(self) -> Iterator[str]:
        """The rules of rounds and of evolution."""
        if self.evolution.count and self.teacher.kind != "openai":
            yield "evolution.count asks the chat teacher for questions; set teacher.kind='openai' and teacher.model"
        if self.rounds > 1:
            if self.mix.equal == "steps":
                yield "rounds shares a mix among the rounds; set mix.equal to examples or loss_tokens"
            if self.round_start == "last" and self.mix.equal == "loss_tokens":
                yield "round_start='last' counts examples; set mix.equal='examples'"
            if self.mix.equal == "examples" and 0 < self.mix.amount < self.rounds:
                yield f"mix.amount={self.mix.amount} is below rounds={self.rounds}; give each round an example or more"
            if self.round_start == "last" and 0 < self.training.steps < self.rounds:
                yield f"training.steps={self.training.steps} is below rounds={self.rounds}, which share them"
            if not any(arms.own(name) for name in self.arms):
                yield f"rounds={self.rounds}: no arm learns from attempts; add lema, or leave rounds out"

    def _unknown(self) -> Iterator[str]:
        choices = {
            "mix.equal": (self.mix.equal, EQUAL),
            "mix.overlap": (self.mix.overlap, ("refuse", "drop", "keep")),
            "teacher.kind": (self.teacher.kind, ("reference", "openai")),
            "attempts.prompt_style": (self.attempts.prompt_style, prompts.STYLES),
            "checkpoint": (self.checkpoint, ("last", "best")),
            "arms_start": (self.arms_start, ("student", "base")),
            "round_start": (self.round_start, ("student", "last")),
            "dtype": (self.dtype, ("float32", "bfloat16")),
        }
        choices |= {f"tests[{number}].style": (test.style, prompts.STYLES) for number, test in enumerate(self.tests)}
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                yield f"{name}={value!r} must be one of {', '.join(allowed)}"
        for name in self.arms:
            try:
                arms.parse(name)
            except UserError as error:
                yield f"arms: {error}"
        for name in dict.fromkeys((self.task, *(test.task for test in self.tests))):
            try:
                tasks.get(name)
            except UserError as error:
                yield f"task={name!r}: {error}"
        for test in self.tests:
            if test.task in tasks.NAMES and test.split not in (splits := tasks.get(test.task).SPLITS):
                yield f"tests: {test.task} has no split {test.split!r}; it has {', '.join(splits)}"
            if (test.task, test.split) == (self.task, "train"):
                yield f"tests: {test.name} is what the arms learn from; test on another split"

    def _repeated(self) -> Iterator[str]:
        named = {"arms": self.arms, "seeds": self.seeds, "tests": [test.name for test in self.tests]}
        for what, values in named.items():
            if twice := [str(value) for value, count in Counter(values).items() if count > 1]:
                yield f"{what}: {', '.join(twice)} twice; name each once"


def as_dict(config: StudyConfig) -> dict[str, Any]:
    """The configuration as nested plain values."""
    dumped: dict[str, Any] = pydantic.TypeAdapter(StudyConfig).dump_python(config, mode="json")
    return dumped


def from_dict(content: Any, where: str) -> StudyConfig:
    """The configuration in `as_dict`'s form.

    Raises:
      UserError: it is none, or one of another version; names `where` it stands and the field.
    """
    try:
        return pydantic.TypeAdapter(StudyConfig).validate_python(content)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "its content"
        raise UserError(
            f"{where} has no configuration of a study: {field}: {first['msg']}; go on by --config"
        ) from None
