import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lema_jax.errors import UserError
from lema_jax.model.config import Compute, LlamaConfig
from lema_jax.model.llama import Llama
from lema_jax.parallel import sharding
from lema_jax.parallel.mesh import MeshConfig, make_mesh
from tests import tiny


def boxed(config: LlamaConfig = tiny.CONFIG):
    return jax.eval_shape(Llama(config, Compute(), tiny.LORA).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))


@pytest.mark.parametrize(
    "sizes", [(2, 2, 2), *(pytest.param(sizes, marks=pytest.mark.slow) for sizes in [(8, 1, 1), (1, 8, 1), (4, 1, 2)])]
)
def test_logits_do_not_depend_on_the_mesh(sizes):
    model, variables = Llama(tiny.CONFIG, Compute(), tiny.LORA), tiny.variables(lora=tiny.LORA)
    tokens = tiny.tokens(8, 6)
    alone = tiny.apply(model, variables, tokens)
    mesh = make_mesh(MeshConfig(*sizes))
    with sharding.use(mesh):
        placed = jax.device_put(variables, sharding.of(sharding.abstract(boxed(), mesh)))
        rows = jax.device_put(tokens, jax.sharding.NamedSharding(mesh, sharding.BATCH))
        np.testing.assert_allclose(jax.jit(model.apply)(placed, rows), alone, atol=1e-4)


def test_a_kernel_is_sharded():
    mesh = make_mesh(MeshConfig(1, 4, 2))
    kernel = sharding.abstract(boxed(), mesh)["params"]["layers"]["mlp"]["gate"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 32 // 4, 48 // 2)


def test_every_array_that_does_not_divide_is_named():
    with pytest.raises(UserError) as error:
        sharding.abstract(boxed(LlamaConfig(512, 30, 50, 1, 5, 5, 6)), make_mesh(MeshConfig(1, 4, 2)))
    assert "params.layers.attn.q.kernel: embed=30 does not divide by mesh axis fsdp=4" in str(error.value)
    assert "params.norm" not in str(error.value)
    assert str(error.value).count("\n") > 5


def test_an_axis_without_a_rule_is_an_error():
    leaf = nn.LogicallyPartitioned(jax.ShapeDtypeStruct((4,), jnp.float32), names=("depth",))
    with pytest.raises(UserError, match="w: axis 'depth' has no rule"):
        sharding.abstract({"w": leaf}, make_mesh(MeshConfig()))
    with pytest.raises(UserError, match=r"w: shape \(4,\) has no axis names"):
        sharding.abstract({"w": jax.ShapeDtypeStruct((4,), jnp.float32)}, make_mesh(MeshConfig()))


def test_an_activation_with_an_unknown_axis_is_an_error_under_a_mesh():
    from lema_jax.model.llama import shard

    with sharding.use(make_mesh(MeshConfig())), pytest.raises(ValueError, match="did not match a rule"):
        jax.jit(lambda x: shard(x, "depth"))(jnp.zeros(8))


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (MeshConfig(-1, 1, 1), (8, 1, 1, 1)),
        (MeshConfig(2, -1, 2), (2, 2, 1, 2)),
        (MeshConfig(2, 1, 2, 2), (2, 1, 2, 2)),
    ],
)
def test_a_mesh_takes_all_devices(config, sizes):
    assert config.resolve(8) == sizes


@pytest.mark.parametrize(
    "config", [MeshConfig(3, -1, 1), MeshConfig(2, 2, 1), MeshConfig(-1, -1, 1), MeshConfig(0, 8, 1)]
)
def test_a_mesh_that_does_not_fit_says_so(config):
    with pytest.raises(UserError, match=r"mesh\.data="):
        config.resolve(8)
