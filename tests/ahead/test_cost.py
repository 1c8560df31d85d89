# ruff: noqa: E501
"""Costs of small programs that are known by hand, in the TPU compiler's HLO."""

import pytest

from lema_jax.ahead import cost, hlo, kernels
from lema_jax.ahead.hlo import Array, Computation, Instruction
from lema_jax.model.flops import SPLASH_MATMULS, splash_matmul
from lema_jax.parallel.chips import CHIPS

CHIP = CHIPS["v5e"]
LOOP = """
HloModule made_up, is_scheduled=true

%fused_step (param_0: bf16[8,64,128], param_1: s32[], param_2: bf16[32,64]) -> bf16[32,128] {
  %param_0 = bf16[8,64,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %slice = bf16[1,64,128]{2,1,0:T(8,128)(2,1)} dynamic-slice(%param_0, %param_1, %zero, %zero), dynamic_slice_sizes={1,64,128}
  %flat = bf16[64,128]{1,0:T(8,128)(2,1)} bitcast(%slice)
  %param_2 = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(2)
  ROOT %product = bf16[32,128]{1,0:T(8,128)(2,1)} convolution(%param_2, %flat), dim_labels=bf_io->bf
}

%body (state: (s32[], bf16[8,64,128], bf16[32,64], bf16[32,128])) -> (s32[], bf16[8,64,128], bf16[32,64], bf16[32,128]) {
  %state = (s32[]{:T(128)}, bf16[8,64,128]{2,1,0}, bf16[32,64]{1,0}, bf16[32,128]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %stack = bf16[8,64,128]{2,1,0:T(8,128)(2,1)} get-tuple-element(%state), index=1
  %x = bf16[32,64]{1,0:T(8,128)(2,1)} get-tuple-element(%state), index=2
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%i, %two)
  %y = bf16[32,128]{1,0:T(8,128)(2,1)} fusion(%stack, %i, %x), kind=kOutput, calls=%fused_step, backend_config={"window_config":{"estimated_cycles":"3000"}}
  %g = bf16[128,128]{1,0:T(8,128)(2,1)} all-gather(%y), channel_id=3, replica_groups=[2,4]<=[8], dimensions={0}, metadata={op_name="jit(f)/while/body/dot_general"}
  ROOT %out = (s32[]{:T(128)}, bf16[8,64,128]{2,1,0}, bf16[32,64]{1,0}, bf16[32,128]{1,0}) tuple(%next, %stack, %x, %y)
}

%condition (state.1: (s32[], bf16[8,64,128], bf16[32,64], bf16[32,128])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, bf16[8,64,128]{2,1,0}, bf16[32,64]{1,0}, bf16[32,128]{1,0}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %limit = s32[]{:T(128)} constant(8)
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}, execution_thread="sparsecore"

ENTRY %main (a: bf16[8,64,128], b: bf16[32,64], c: bf16[32,128]) -> bf16[32,128] {
  %a = bf16[8,64,128]{2,1,0:T(8,128)(2,1)} parameter(0)
  %b = bf16[32,64]{1,0:T(8,128)(2,1)} parameter(1)
  %c = bf16[32,128]{1,0:T(8,128)(2,1)} parameter(2)
  %begin = s32[]{:T(128)} constant(2)
  %pack = (s32[]{:T(128)}, bf16[8,64,128]{2,1,0}, bf16[32,64]{1,0}, bf16[32,128]{1,0}) tuple(%begin, %a, %b, %c)
  %loop = (s32[]{:T(128)}, bf16[8,64,128]{2,1,0}, bf16[32,64]{1,0}, bf16[32,128]{1,0}) while(%pack), condition=%condition, body=%body
  ROOT %result = bf16[32,128]{1,0:T(8,128)(2,1)} get-tuple-element(%loop), index=3
}
"""
TRIPS = 3  # from 2, by 2, below 8
PRODUCT = 2 * 32 * 64 * 128
TOUCHED = 2 * (64 * 128 + 32 * 64 + 32 * 128) + 3 * 4  # a slice of the stack, x, y; the counter, read and written


def test_a_loop_costs_its_body_times_its_trips():
    found = cost.count(LOOP, CHIP)
    assert found.flops == TRIPS * PRODUCT
    assert found.hbm_bytes == TRIPS * TOUCHED
    assert found.hybrid_s == pytest.approx(TRIPS * 3000 / CHIP.clock, rel=1e-3)
    assert found.roof_s == pytest.approx(TRIPS * TOUCHED / (0.9 * CHIP.hbm_bandwidth), rel=1e-3)
    assert found.open_loops == ()


def test_collectives_say_how_often_how_much_and_whence():
    (found,) = cost.count(LOOP, CHIP).collectives
    assert (found.kind, found.group, found.times, found.dtype) == ("all-gather", 4, TRIPS, "bf16")
    assert found.bytes == 128 * 128 * 2 * 3 / 4
    assert found.source == "jit(f)/while/body/dot_general"


def test_a_loop_without_a_counter_is_counted_once_and_named():
    text = LOOP.replace(
        "ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT", "ROOT %less = pred[] constant(true)"
    )
    text = text.replace(
        "condition=%condition, body=%body", 'condition=%condition, body=%body, metadata={op_name="decoding"}'
    )
    found = cost.count(text, CHIP)
    assert (found.flops, found.open_loops) == (PRODUCT, ("decoding",))


def test_arrays_in_vmem_cost_no_hbm():
    inside = LOOP.replace(
        "bf16[32,64]{1,0:T(8,128)(2,1)} get-tuple-element", "bf16[32,64]{1,0:T(8,128)(2,1)S(1)} get-tuple-element"
    )
    assert cost.count(LOOP, CHIP).hbm_bytes - cost.count(inside, CHIP).hbm_bytes == TRIPS * 2 * 32 * 64


def test_an_asynchronous_collective_is_counted_where_it_starts():
    gather = "channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}"
    text = f"""
%start (p: f32[8,16]) -> (f32[8,16], f32[32,16]) {{
  %p = f32[8,16]{{1,0}} parameter(0)
  %g.1 = f32[32,16]{{1,0}} all-gather(%p), {gather}
  ROOT %s = (f32[8,16]{{1,0}}, f32[32,16]{{1,0}}) custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}}

%meanwhile (q: f32[8,16]) -> f32[32,16] {{
  %q = f32[8,16]{{1,0}} parameter(0)
  ROOT %g.2 = f32[32,16]{{1,0}} all-gather(%q), {gather}
}}

%all-reduce-scatter.4 (r: f32[32,16]) -> f32[8,16] {{
  %r = f32[32,16]{{1,0}} parameter(0)
  %sum = f32[32,16]{{1,0}} all-reduce(%r), channel_id=4, replica_groups={{{{0,1,2,3}}}}, to_apply=%add
  ROOT %part = f32[8,16]{{1,0}} dynamic-slice(%sum), dynamic_slice_sizes={{8,16}}
}}

ENTRY %main (a: f32[8,16]) -> f32[8,16] {{
  %a = f32[8,16]{{1,0}} parameter(0)
  %f.1 = (f32[8,16]{{1,0}}, f32[32,16]{{1,0}}) fusion(%a), kind=kCustom, calls=%start
  %f.2 = f32[32,16]{{1,0}} fusion(%a), kind=kCustom, calls=%meanwhile
  ROOT %f.3 = f32[8,16]{{1,0}} fusion(%f.2), kind=kCustom, calls=%all-reduce-scatter.4
}}
"""
    found = cost.count(text, CHIP)
    assert [(one.kind, one.group, one.bytes) for one in found.collectives] == [
        ("all-gather", 4, 32 * 16 * 4 * 3 / 4),
        ("reduce-scatter", 4, 32 * 16 * 4 * 3 / 4),
    ]


def kernel_flops(kind: str, table: tuple[int, ...], length: int, width: int) -> float:
    """Operands as the compiler prints them: tables and segments are integers, as wide as a head may be."""
    segments = [("s32", (4, length, 128)), ("s32", (4, 8, length)), ("s32", (length, 128))]
    operands = [*[("s8", table)] * 2, *[("bf16", (4, 6, length, width))] * 3, *segments]
    inside = Computation("inside")
    for number, (dtype, dims) in enumerate(operands):
        array = Array(dtype, dims, 0)
        inside.instructions[f"p{number}"] = Instruction(f"p{number}", "parameter", (array,), (), "", "", False)
    names = tuple(inside.instructions)
    call = Instruction(f"splash_mha_{kind}_residuals.1", "custom-call", (), names, "", "", False)
    return kernels.flops(call, inside)


@pytest.mark.parametrize("width", [48, 64, 128])
def test_queries_and_keys_of_a_kernel_call_are_its_first_floats(width):
    assert kernel_flops("fwd", (1, 1, 1), 128, width) == SPLASH_MATMULS["fwd"] * splash_matmul(24, 128, 128, width)


@pytest.mark.parametrize("kind", SPLASH_MATMULS)
@pytest.mark.parametrize(("window", "seen"), [(512, 2), (1100, 4), (None, 8)])
def test_a_kernel_with_a_window_skips_the_blocks_outside_it(kind, window, seen):
    """Tables as compiled for 4,096 tokens in blocks of 512."""
    table = (1, seen, 8) if kind == "dkv" else (1, 8, seen)
    expected = SPLASH_MATMULS[kind] * splash_matmul(24, 4096, 4096, 128, window)
    assert kernel_flops(kind, table, 4096, 128) == expected


MEGASCALE = """
ENTRY %main (a: bf16[512,512]) -> bf16[512,512] {{
  %a = bf16[512,512]{{1,0:T(8,128)(2,1)}} parameter(0)
  %part = bf16[128,512]{{1,0}} reduce-scatter(%a), channel_id=1, replica_groups={{{{0,1,2,3}}}}, dimensions={{0}}, to_apply=%add
  %b = token[] after-all()
  %send = (bf16[128,512]{{1,0}}, u32[], token[]) send(%part, %b), channel_id=2, is_host_transfer=true, frontend_attributes={{_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="x_0",_xla_megascale_target={target},_xla_megascale_transfer_type="{kind}"}}
  %recv = (bf16[128,512]{{1,0}}, u32[], token[]) recv(%b), channel_id=1, is_host_transfer=true, frontend_attributes={{_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_host_transfer_rendezvous="x_0",_xla_megascale_target={target},_xla_megascale_transfer_type="{kind}"}}
  %sent = token[] send-done(%send), channel_id=2, is_host_transfer=true
  %done = (bf16[128,512]{{1,0}}, token[]) recv-done(%recv), channel_id=1, is_host_transfer=true
  %sum = bf16[128,512]{{1,0}} get-tuple-element(%done), index=0
  ROOT %g = bf16[512,512]{{1,0}} all-gather(%sum), channel_id=1, replica_groups={{{{0,1,2,3}}}}, dimensions={{0}}
}}
"""
PART = 128 * 512 * 2


@pytest.mark.parametrize(
    ("transfer", "target", "kind", "group", "sent"),
    [
        ("ALL_REDUCE", '"{1,2}x{0:3}"', "all-reduce", 2, PART),
        ("ALL_REDUCE", '"{1,2,3,4}x{0:3}"', "all-reduce", 4, PART * 3 / 2),
        ("ALL_GATHER", '"{1,2,3,4}x{0:3}"', "all-gather", 4, PART * 3),
        ("REDUCE_SCATTER", '"{1,2,3,4}x{0:3}"', "reduce-scatter", 4, PART * 3 / 4),
        ("ALL_TO_ALL", "{{100000,200000,300000,400000},{100001,200001,300001,400001}}", "all-to-all", 4, PART * 3 / 4),
        ("ONE_TO_ONE", "{{100000->200000},{200000->300000},{300000->100000}}", "collective-permute", 2, PART),
    ],
)
def test_traffic_between_slices_is_apart_from_the_interconnect(transfer, target, kind, group, sent):
    # A collective over slices: within a slice, between them by way of the hosts, within a slice; all of one channel.
    found = cost.count(MEGASCALE.format(kind=transfer, target=target), CHIP)
    assert [(one.kind, one.between_slices) for one in found.collectives] == [
        ("reduce-scatter", False),
        (kind, True),
        ("all-gather", False),
    ]
    assert found.collectives[1].group == group
    assert found.dcn_bytes == sent
    assert found.ici_bytes == 2 * 512 * 512 * 2 * 3 / 4


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups=[8,4]<=[32]", 4),
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=8] {'axis_1'}", 8),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=8] {'axis_0','axis_1'}", 32),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=8] {'axis_1':(2)4}", 4),
        ("source_target_pairs={{0,1},{1,0}}", 2),
    ],
)
def test_group_sizes_in_every_spelling(groups, size):
    one = hlo.Instruction("x", "all-gather", (), (), "", f", channel_id=1, {groups}", False)
    assert cost.group_size(one) == size


def test_a_convolution_counts_what_meets_an_input():
    # A product over a window of 4 with padding 3 on both sides: 7 outputs, of 16 pairs of tap and input.
    text = """
ENTRY %main (a: f32[2,4,8], b: f32[4,8,5]) -> f32[2,7,5] {
  %a = f32[2,4,8]{2,1,0} parameter(0)
  %b = f32[4,8,5]{2,1,0} parameter(1)
  ROOT %c = f32[2,7,5]{2,1,0} convolution(%a, %b), window={size=4 pad=3_3}, dim_labels=b0f_0io->b0f
}
"""
    assert cost.count(text, CHIP).flops == 2 * 16 * 2 * 8 * 5


def test_a_branch_costs_its_dearest_arm():
    text = """
%cheap (p: f32[4]) -> f32[4] {
  ROOT %p = f32[4]{0} parameter(0)
}

%dear (q: f32[4]) -> f32[4] {
  %q = f32[4]{0} parameter(0)
  ROOT %n = f32[4]{0} negate(%q)
}

ENTRY %main (i: s32[], a: f32[4]) -> f32[4] {
  %i = s32[] parameter(0)
  %a = f32[4]{0} parameter(1)
  ROOT %c = f32[4]{0} conditional(%i, %a, %a), branch_computations={%cheap, %dear}
}
"""
    assert cost.count(text, CHIP).hbm_bytes == 32


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="no entry computation"):
        hlo.parse("nothing")
