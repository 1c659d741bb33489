"""Macs of single operators against closed forms and torch's FlopCounterMode, and operators that are refused."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from profilers.aten import COUNTED, NOT_COUNTED, UncountedOperatorError
from profilers.macs import count_macs
from tests.profilers.counted import Function, flops_by_torch, meta

sizes = st.integers(1, 6)


@given(batch=sizes, tokens=sizes, width=sizes, out=sizes, bias=st.booleans())
@settings(max_examples=20, deadline=None)
def test_linear(batch: int, tokens: int, width: int, out: int, bias: bool) -> None:
    count = count_macs(nn.Linear(width, out, bias=bias), torch.ones(batch, tokens, width))
    assert count.total == batch * tokens * width * out
    assert count.by_operator == {"aten::linear": count.total}
    assert count.flops == 2 * count.total


@given(
    batch=sizes, groups=sizes, heads_per_group=sizes, queries=sizes, keys=sizes, key_width=sizes, value_width=sizes,
    causal=st.booleans(), device=st.sampled_from(["cpu", "meta"]),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_attention_is_the_full_square(
    batch: int, groups: int, heads_per_group: int, queries: int, keys: int, key_width: int, value_width: int,
    causal: bool, device: str,
) -> None:  # fmt: skip
    heads = groups * heads_per_group
    query = torch.ones(batch, heads, queries, key_width, device=device)
    key = torch.ones(batch, groups, keys, key_width, device=device)
    value = torch.ones(batch, groups, keys, value_width, device=device)
    module = Function(functional.scaled_dot_product_attention)
    count = count_macs(module, query, key, value, is_causal=causal, enable_gqa=heads_per_group > 1)
    assert count.by_operator == {
        "aten::scaled_dot_product_attention": batch * heads * queries * keys * (key_width + value_width)
    }


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (4, 1)], ids=["MHA", "GQA", "MQA"])
def test_attention_agrees_with_its_eager_form(heads: int, groups: int) -> None:
    def eager(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key, value = (states.repeat_interleave(heads // groups, dim=1) for states in (key, value))
        return (query @ key.mT).softmax(-1) @ value

    states = meta(2, heads, 5, 3), meta(2, groups, 7, 3), meta(2, groups, 7, 6)
    fused = count_macs(Function(functional.scaled_dot_product_attention), *states, enable_gqa=True)
    assert fused.total == count_macs(Function(eager), *states).total == flops_by_torch(Function(eager), *states) // 2


MATRIX_PRODUCTS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "mm": (torch.mm, (meta(2, 3), meta(3, 4))),
    "bmm": (torch.bmm, (meta(5, 2, 3), meta(5, 3, 4))),
    "addmm": (torch.addmm, (meta(4), meta(2, 3), meta(3, 4))),
    "baddbmm": (torch.baddbmm, (meta(5, 2, 4), meta(5, 2, 3), meta(5, 3, 4))),
    "matmul, left batch": (torch.matmul, (meta(6, 5, 2, 3), meta(3, 4))),
    "matmul, right batch": (torch.matmul, (meta(2, 3), meta(6, 5, 3, 4))),
    "matmul, both batched": (torch.matmul, (meta(6, 1, 2, 3), meta(5, 3, 4))),
    "einsum, heads": (lambda a, b: torch.einsum("bthd, bshd -> bhts", a, b), (meta(2, 3, 4, 5), meta(2, 6, 4, 5))),
    "einsum, broadcast": (lambda a, b: torch.einsum("bij,bjk->bik", a, b), (meta(5, 2, 3), meta(1, 3, 4))),
    "einsum, summed first": (lambda a, b: torch.einsum("ijx,jk->ik", a, b), (meta(2, 3, 9), meta(3, 4))),
    # Convolutions run on the CPU: torch cannot trace them on the meta device.
    "conv1d": (functional.conv1d, (torch.ones(2, 3, 9), torch.ones(4, 3, 3))),
    "conv2d": (
        lambda x, w: functional.conv2d(x, w, stride=2, padding=1),
        (torch.ones(2, 3, 9, 8), torch.ones(4, 3, 3, 3)),
    ),
    "conv2d, padding by name": (
        lambda x, w: functional.conv2d(x, w, padding="valid"),
        (torch.ones(2, 3, 9, 8), torch.ones(4, 3, 3, 3)),
    ),
    "conv2d, grouped": (
        lambda x, w: functional.conv2d(x, w, groups=2),
        (torch.ones(2, 6, 9, 8), torch.ones(4, 3, 3, 3)),
    ),
    "conv3d": (functional.conv3d, (torch.ones(2, 3, 4, 9, 8), torch.ones(4, 3, 2, 3, 3))),
    "conv2d, transposed": (
        lambda x, w: functional.conv_transpose2d(x, w, stride=2),
        (torch.ones(2, 3, 9, 8), torch.ones(3, 4, 3, 3)),
    ),
}


@pytest.mark.parametrize(("function", "operands"), MATRIX_PRODUCTS.values(), ids=MATRIX_PRODUCTS.keys())
def test_matrix_product_agrees_with_torch(function: Callable[..., Tensor], operands: tuple[Tensor, ...]) -> None:
    module = Function(function)
    assert count_macs(module, *operands).flops == flops_by_torch(module, *operands) > 0


def test_products_with_vectors() -> None:
    # FlopCounterMode does not see them.
    assert count_macs(Function(torch.mv), meta(2, 3), meta(3)).total == 2 * 3
    assert count_macs(Function(torch.matmul), meta(5, 2, 3), meta(3)).total == 5 * 2 * 3
    assert count_macs(Function(torch.matmul), meta(3), meta(3)).total == 3
    assert count_macs(Function(lambda a, b: torch.einsum("i,j->ij", a, b)), meta(2), meta(3)).total == 2 * 3


def test_grouped_product_counts_each_row_once() -> None:
    rows, experts, ends = torch.ones(6, 8), torch.ones(2, 8, 16), torch.tensor([2, 6], dtype=torch.int32)
    count = count_macs(Function(functional.grouped_mm), rows.bfloat16(), experts.bfloat16(), offs=ends)
    assert count.by_operator == {"aten::_grouped_mm": 6 * 8 * 16}


@torch.library.custom_op("profilers_test::mystery", mutates_args=())
def mystery(left: Tensor, right: Tensor) -> Tensor:
    return left @ right


@mystery.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(left.shape[0], right.shape[1])


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x @ x


UNCOUNTED: dict[str, Callable[[Tensor], Tensor]] = {
    "aten::cdist": lambda x: torch.cdist(x, x),
    "aten::tensordot": lambda x: torch.tensordot(x, x, 1),
    "aten::inner": lambda x: torch.inner(x, x),
    "aten::linalg_multi_dot": lambda x: torch.linalg.multi_dot((x, x, x)),
    "aten::einsum of 'ij,jk,kl->il'": lambda x: torch.einsum("ij,jk,kl->il", x, x, x),
    "aten::einsum of '...ij,jk->...ik'": lambda x: torch.einsum("...ij,jk->...ik", x, x),
    "aten::einsum of 'ij,jk'": lambda x: torch.einsum("ij,jk", x, x),
    "profilers_test::mystery": lambda x: mystery(x, x),
    "prim::PythonOp.Squared": lambda x: Squared.apply(x),  # type: ignore[no-untyped-call]
    "aten::bilinear": lambda x: functional.bilinear(x, x, torch.ones(2, 3, 3)),
}


@pytest.mark.parametrize(("operator", "function"), UNCOUNTED.items(), ids=UNCOUNTED.keys())
def test_unknown_operator_is_an_error(operator: str, function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UncountedOperatorError) as caught:
        count_macs(Function(function), torch.ones(3, 3))
    assert list(caught.value.operators.values()) == [1]
    assert operator in str(caught.value)
    assert "profilers.aten.COUNTED" in str(caught.value)


def test_unknown_operator_can_be_given_a_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COUNTED, "profilers_test::mystery", lambda inputs, outputs: 7)
    count = count_macs(Function(lambda x: mystery(x, x)), torch.ones(3, 3))
    assert count.by_operator == {"profilers_test::mystery": 7}


def test_tables_name_operators_of_torch_and_do_not_overlap() -> None:
    known = {schema.name for schema in torch._C._jit_get_all_schemas()}
    assert not set(COUNTED) - known
    assert not NOT_COUNTED - known
    assert not NOT_COUNTED & set(COUNTED)


def test_what_is_left_out_is_listed() -> None:
    count = count_macs(nn.Sequential(nn.LayerNorm(4), nn.GELU(), nn.Softmax(-1)), torch.ones(2, 4))
    assert (count.total, count.by_operator) == (0, {})
    assert count.not_counted == {"aten::layer_norm": 1, "aten::gelu": 1, "aten::softmax": 1}
