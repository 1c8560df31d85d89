"""`aot` with the real compiler: its reports of programs that fit and that do not, and its errors.

The figures are of the recorded compiler: a change that adds 3 % of memory, traffic or flops fails.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lema_jax import aot as stage
from lema_jax.ahead import programs
from lema_jax.ahead.compiler import devices
from lema_jax.model import presets
from lema_jax.parallel import chips
from lema_jax.parallel.mesh import MeshConfig
from lema_jax.training import paper
from tests import commands

HERE = Path(__file__).parents[2]
RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())
compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no libtpu, the TPU compiler; it is in the extra [tpu]"
)


def aot(*flags: str, **environment: str) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TPU_", "XLA_"))}
    return subprocess.run(
        [sys.executable, "-m", "lema_jax.aot", *flags], cwd=HERE, env=env | environment, capture_output=True, text=True
    )


@pytest.mark.slow  # minutes of the compiler's
@compiler
@pytest.mark.parametrize("name", RECORDED)
def test_nothing_has_grown(name, tmp_path):
    ended = aot(*RECORDED[name]["flags"], f"--json={tmp_path}/report.json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads((tmp_path / "report.json").read_text())
    found = {
        "peak_bytes": told["memory_bytes"]["peak"],
        "ici_bytes": told["ici_bytes_per_chip"],
        "dcn_bytes": told["dcn_bytes_per_chip"],
        "flops": told["flops_per_chip"],
        "hbm_bytes": told["hbm_bytes_per_chip"],
    }
    assert told["flops_per_chip"] == pytest.approx(told["flops_by_formula_per_chip"], rel=0.005)
    grown = {key: found[key] / value for key, value in RECORDED[name]["figures"].items() if found[key] > 1.03 * value}
    assert grown == {}, f"{grown} times the recorded figures; if that is meant, record {found}"


@pytest.mark.slow
@compiler
@pytest.mark.parametrize("preset", ["llama-3.2-3b", "llama-3.2-1b"], ids=["heads of 128", "heads of 64"])
def test_decoding_updates_its_cache_in_place(preset):
    where = chips.named("v5e-4")
    config = paper.qlora("llama2-70b", "gsm8k")
    config.lora, config.mesh = None, MeshConfig(data=1, fsdp=1, tensor=4)
    job = programs.Target(where, devices(where), presets.get(preset))
    memory = programs.decode_step(job, config, rows=64, cache_length=1024).memory
    assert memory.alias > 0.5e9  # the cache, which is the only thing that is returned
    assert memory.temporaries < memory.alias / 20


SMALL = ["--config=configs/llama2_7b_gsm8k.py", "--topology=v5e-4", "--config.lora.base=dense"]


@pytest.mark.slow
@compiler
def test_what_does_not_fit_says_what_fills_the_chip_and_what_to_try():
    ended = aot(*SMALL, "--preset=smollm2-360m", "--config.compute.remat=none", "--config.data.batch_size=384")
    assert ended.returncode == 2, ended.stderr
    assert "DOES NOT FIT: needs" in ended.stdout
    assert "largest arguments on a chip" in ended.stdout
    assert "frozen.params.layers.mlp.down.kernel" in ended.stdout
    assert "try --config.compute.remat=full" in ended.stdout
    assert "try --config.accumulation=96" in ended.stdout


@compiler
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--preset=smollm2-360m", "--config.mesh.tensor=3"], "is not a layout of 4 devices"),
        (["--preset=smollm2-360m", "--config.data.batch_size=6"], "data.batch_size=6 must divide by mesh"),
        ([], "name its architecture with --preset"),
        (["--preset=llama-2-9b"], "no preset is named 'llama-2-9b'"),
        (["--preset=smollm2-360m", "--topology=v5e-5"], "'v5e-5' is no slice of v5e"),
        (["--preset=smollm2-360m", "--topology=tpu"], "no TPU slice is named 'tpu'"),
        (["--preset=smollm2-360m", "--calibrate=none.json"], "cannot be read"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_mistakes_are_one_message(flags, message, monkeypatch):
    monkeypatch.chdir(HERE)
    ended = commands.run(stage.command, *SMALL, *flags)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: ")
    assert message in ended.stderr


@pytest.mark.slow
def test_without_the_compiler_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'libtpu' else find(name, *rest)\n"
    )
    ended = aot(*SMALL, "--preset=smollm2-360m", PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert ended.returncode == 1
    assert "install the extra" in ended.stderr


@compiler
@pytest.mark.slow
def test_libtpu_knows_every_slice_that_we_name():
    for chip in chips.CHIPS.values():
        for shape in chips.slices(chip):
            found = devices(chips.Slice(chip, shape))
            assert len(found) == chips.Slice(chip, shape).chips, shape
            assert chips.peak_flops(found[0].device_kind) == chip.flops
