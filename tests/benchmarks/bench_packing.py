"""Training steps with a number of examples, packed into rows of several shapes: examples a second, and padding.

    python -m tests.benchmarks.bench_packing --data=runs/data_cot,runs/data_lema [--examples=24] \
        [--shapes=18x256,9x512] [--steps=125] [--timed=5] [--rounds=3]

The model is that of `configs/arithmetic_student.py`. First comes one example a row, with the first shape's length. The
shapes take turns, and each round prints a JSON line of each: the median step's examples and real tokens a second, and
the processor seconds of a step, which other processes on the machine disturb less. Before: the fewest rows of each
length that hold every one of `--steps` steps of each data set, and the padding of all these.
"""

import argparse
import json
import runpy
import statistics
import time

import jax

from lema_jax.data import dataset
from lema_jax.data.batches import DataConfig, batches, fit
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from lema_jax.training.config import TrainConfig
from lema_jax.training.setup import Setup
from lema_jax.training.step import State
from tests.benchmarks import busy

LENGTHS = (192, 256, 320, 384, 448, 512)


class Shape:
    """A compiled training step of a configuration, its state, and its batches."""

    def __init__(self, config: TrainConfig) -> None:
        mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
        self.name = f"{config.data.batch_size}x{config.data.seq_len}" + ("" if config.data.packing else ", one a row")
        with sharding.use(mesh):
            assert config.model
            self.setup = Setup(config, config.model, mesh)
            self.state: State = self.setup.begin(self.setup.random(0))
            self.seed = self.setup.put_seed(0)
            self.step = self.setup.compiled_step
        self.batches = iter(batches(config.data))
        self.run()

    def run(self) -> tuple[float, float, int, int]:
        """Of one step: seconds, processor seconds, examples, and real tokens."""
        rows = next(self.batches)
        batch = jax.block_until_ready(self.setup.put(rows))
        wall, cpu = time.perf_counter(), time.process_time()
        self.state, metrics = self.step(self.state, {}, batch, self.seed)
        jax.block_until_ready(metrics)
        spent = time.perf_counter() - wall, time.process_time() - cpu
        return *spent, int(rows["segment_ids"].max(axis=1).sum()), int((rows["segment_ids"] > 0).sum())


def fits(path: str, examples: int, steps: int) -> None:
    """Prints the fewest rows of each length, and their padding, over the steps of a run."""
    lengths = dataset.lengths(path)[:, 0]
    real = lengths.mean() * examples
    for length in (length for length in LENGTHS if length >= lengths.max()):
        rows = fit(DataConfig(path, 1, length, examples_per_step=examples), steps).rows
        padding = {"packed": round(1 - real / rows / length, 3), "one a row": round(1 - real / examples / length, 3)}
        print(json.dumps({"data": path, "length": length, "rows": rows, "padding": padding}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True, help="data sets; the last one's examples are trained on")
    parser.add_argument("--examples", type=int, default=24)
    parser.add_argument("--shapes", default="18x256,9x512", help="rows x tokens of a row")
    parser.add_argument("--steps", type=int, default=125)
    parser.add_argument("--timed", type=int, default=5, help="steps of each shape in a round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for path in given.data.split(","):
        fits(path, given.examples, given.steps)

    config = runpy.run_path("configs/arithmetic_student.py")["get_config"]()
    wanted = [tuple(map(int, shape.split("x"))) for shape in given.shapes.split(",")]
    datas = [DataConfig(path, given.examples, wanted[0][1], packing=False)]
    datas += [DataConfig(path, rows, length, examples_per_step=given.examples) for rows, length in wanted]
    shapes = []
    for data in datas:
        config.data = data
        shapes.append(Shape(config))
    for number in range(given.rounds):
        for shape in shapes:
            since = busy.read()
            seconds, cpu, examples, tokens = zip(*(shape.run() for _ in range(given.timed)))
            median = statistics.median(seconds)
            busy.report(
                since,
                round=number,
                shape=shape.name,
                examples_per_second=round(statistics.mean(examples) / median, 1),
                tokens_per_second=round(statistics.mean(tokens) / median),
                seconds=round(median, 3),
                cpu_seconds=round(statistics.median(cpu), 3),
            )


if __name__ == "__main__":
    main()
