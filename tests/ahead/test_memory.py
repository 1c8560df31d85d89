"""Out-of-memory errors in the compiler's words."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lema_jax.ahead import memory
from lema_jax.parallel.mesh import MeshConfig, make_mesh

LISTED = """RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom:
XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.83G of 15.75G hbm. Exceeded by 5.08G.

Total hbm usage >= 21.09G:
    reserved        264.00M
    program          18.32G
    arguments         2.51G

  Largest program allocations in hbm:

  1. Size: 8.00G
     Operator: op_name="jit(train_step)/jvp(Llama.trunk)/while/body/add" source_file="/x.py" source_line=9
     Shape: bf16[80,6,1024,8192]{3,2,1,0:T(8,128)(2,1)}
     Unpadded size: 8.00G
     XLA label: fusion.1 = fusion(p0), kind=kLoop
     Allocation type: HLO temp
     ==========================

  2. Size: 512.00M
     Shape: f32[32000,4096]{1,0:T(8,128)}
     Unpadded size: 512.00M
     XLA label: copy.7 = copy(p1)
     Allocation type: HLO temp
     ==========================
"""
EARLY = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (28.43G) exceeds "
    "available HBM (15.75G)."
)


def test_a_refusal_with_its_largest_buffers_by_name():
    found = memory.out_of_memory(LISTED)
    assert (found.wanted, found.limit) == (20.83 * 2**30, 15.75 * 2**30)
    assert found.buffers == [
        memory.Buffer("jit(train_step)/jvp(Llama.trunk)/while/body/add", 8 * 2**30, "bf16[80,6,1024,8192]"),
        memory.Buffer("copy.7", 2**29, "f32[32000,4096]"),
    ]


def test_a_refusal_at_once_has_none():
    found = memory.out_of_memory(EARLY)
    assert (found.wanted, found.limit, found.buffers) == (28.43 * 2**30, 15.75 * 2**30, [])


@pytest.mark.parametrize("text", ["INTERNAL: Mosaic failed to compile", "RESOURCE_EXHAUSTED: quota", ""])
def test_other_errors_are_other_errors(text):
    assert memory.out_of_memory(text) is None


def test_the_largest_arguments_as_a_chip_holds_them():
    mesh = make_mesh(MeshConfig(1, 4, 2), jax.devices())
    lay = lambda shape, *spec: jax.ShapeDtypeStruct(
        shape, jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(*spec))
    )
    tree = {"a": {"kernel": lay((64, 64), "fsdp", "tensor")}, "b": lay((32, 32)), "c": lay((8,))}
    assert memory.largest(tree, 2) == [
        memory.Buffer("b", 2048, "bfloat16[32,32]"),
        memory.Buffer("a.kernel", 1024, "bfloat16[16,32]"),
    ]
