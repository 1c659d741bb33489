"""How each operator of a trace counts: `COUNTED` holds the macs of matrix products, `NOT_COUNTED` names the rest."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Final

from torch._C import Value

Handle = Callable[[list[Value], list[Value]], int]
"""Macs of one traced operator, from its inputs and its outputs."""


class UncountedOperatorError(RuntimeError):
    """A traced call used an operator that is neither counted nor left out by name."""

    def __init__(self, operators: Mapping[str, int]) -> None:
        self.operators = dict(operators)
        calls = ", ".join(f"{name} ({count} x)" for name, count in sorted(operators.items()))
        super().__init__(
            f"Every operator must be counted or left out by name; this call used {calls}. If it multiplies matrices, "
            "give it a handle in profilers.aten.COUNTED; if not, add its name to profilers.aten.NOT_COUNTED."
        )


def attention_macs(inputs: list[Value], outputs: list[Value]) -> int:
    """Macs of attention by the full-square convention: B * H_q * T_q * T_k * (D_k + D_v).

    Every query meets every key, also where a causal or other mask hides it, as in eager attention. H_q is the number of
    query heads, so that grouped and multi-query attention count what they compute. Softmax and scale are left out.

    Args:
        inputs: query (B, H_q, T_q, D_k), key (B, H_kv, T_k, D_k), value (B, H_kv, T_k, D_v), then options.
        outputs: the attended values (B, H_q, T_q, D_v).
    """
    query_count = prod(_shape(outputs[0])[:-1])
    *_, key_count, value_width = _shape(inputs[2])
    return query_count * key_count * (_shape(inputs[0])[-1] + value_width)


def _matrix_product(left: int) -> Handle:
    # Each output element sums over the last dimension of the operand at index `left`. fvcore's own matmul handle is
    # wrong where only the right operand has batch dimensions.
    return lambda inputs, outputs: prod(_shape(outputs[0])) * _shape(inputs[left])[-1]


def _convolution(inputs: list[Value], outputs: list[Value]) -> int:
    # Only the general operator has the flag `transposed`; then each input element, not output element, meets a slice.
    transposed = len(inputs) > 7 and inputs[6].toIValue()
    elements = prod(_shape(inputs[0] if transposed else outputs[0]))
    return elements * prod(_shape(inputs[1])[1:])


def _einsum(inputs: list[Value], outputs: list[Value]) -> int:
    # fvcore's handle halves the estimate that numpy prints, which is rounded to four digits.
    equation = str(inputs[0].toIValue()).replace(" ", "")
    terms, _, result = equation.partition("->")
    operands = terms.split(",")
    if len(operands) != 2 or "->" not in equation or "." in equation:
        raise UncountedOperatorError({f"aten::einsum of {equation!r}, which is not of the form 'ab,bc->ac'": 1})
    sizes: dict[str, int] = {}
    for labels, value in zip(operands, inputs[1].node().inputs(), strict=True):
        for label, size in zip(labels, _shape(value), strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    multiplied = set(result) | set(operands[0]) & set(operands[1])
    return prod(sizes[label] for label in multiplied)


def _shape(value: Value) -> list[int]:
    sizes: list[int] = value.type().sizes()  # type: ignore[attr-defined]  # a traced tensor has a TensorType
    return sizes


COUNTED: Final[dict[str, Handle]] = {
    "aten::_convolution": _convolution,
    "aten::_convolution_mode": _convolution,
    "aten::_grouped_mm": _matrix_product(0),
    "aten::addmm": _matrix_product(1),
    "aten::baddbmm": _matrix_product(1),
    "aten::bmm": _matrix_product(0),
    "aten::einsum": _einsum,
    "aten::linear": _matrix_product(0),
    "aten::matmul": _matrix_product(0),
    "aten::mm": _matrix_product(0),
    "aten::mv": _matrix_product(0),
    "aten::scaled_dot_product_attention": attention_macs,
}
"""Operators that multiply matrices; add an entry to count a kernel of your own."""

_ARITHMETIC = """
    __iand__ __ior__ __or__ abs add add_ addcmul bitwise_and bitwise_or clamp_min clamp_max cos div div_ exp floor_ log
    logical_and logical_not logical_or minimum maximum mul mul_ neg polar pow reciprocal round rsqrt rsub sin sqrt
    square sub sub_ where le lt ne isin isnan
"""
_ACTIVATIONS = """
    elu erf erfinv gelu gelu_ glu hardtanh leaky_relu log_softmax mish relu6 sigmoid sigmoid_ silu silu_ softmax
    softplus tanh tanh_
"""
_NORMS_AND_REDUCTIONS = """
    _fused_rms_norm all amax amin any argmax argmin batch_norm cumprod cumsum group_norm instance_norm layer_norm
    linalg_vector_norm logsumexp mean min norm prod rms_norm std sum var
"""
_RESAMPLING = """
    _upsample_bicubic2d_aa adaptive_avg_pool1d adaptive_avg_pool2d avg_pool1d avg_pool2d max_pool2d upsample_bicubic2d
    upsample_bilinear2d upsample_linear1d upsample_nearest2d
"""
_CREATION_AND_MOVEMENT = """
    alias argsort bincount broadcast_tensors bucketize clone col2im diff embedding empty_like expand_as eye fill_ flip
    histc im2col index_add index_add_ index_copy_ index_fill index_put index_select lift_fresh linspace mT masked_fill_
    masked_scatter masked_scatter_ masked_select meshgrid movedim new_full new_ones normal_ numpy_T one_hot ones_like
    pad pixel_shuffle pixel_unshuffle rand_like randn_like repeat repeat_interleave reshape_as resolve_conj resolve_neg
    scatter scatter_ scatter_add scatter_add_ searchsorted sort swapaxes tile topk tril triu unflatten unfold uniform_
    unique_consecutive view_as view_as_complex view_as_real zero_
"""
NOT_COUNTED: Final[set[str]] = {
    f"aten::{name}"
    for group in (_ARITHMETIC, _ACTIVATIONS, _NORMS_AND_REDUCTIONS, _RESAMPLING, _CREATION_AND_MOVEMENT)
    for name in group.split()
}
"""Operators left out by name: no product of matrices, and cheap beside one."""
