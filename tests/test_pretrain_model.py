"""The base model in PyTorch: its attention, and an embedding taken apart. Needs the extra `mlx-router[pretrain]`."""

import pytest

torch = pytest.importorskip("torch")

from mlx_router.tiny.pretrain import model  # noqa: E402


@pytest.mark.parametrize("length", [40, 256, 700])
def test_attention_in_parts_is_attention(length: int) -> None:
    torch.manual_seed(0)
    turns = (torch.arange(length) // 50).expand(2, length)
    bias = model.attention_bias(torch.zeros(2, length, dtype=torch.long), turns, torch.float32)
    given = [torch.randn(2, 3, length, 16, requires_grad=True) for _ in range(3)]
    wanted = torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=bias)
    got = model.attend(*given, bias)
    assert torch.allclose(got, wanted, atol=1e-5)
    direction = torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(got, given, direction), torch.autograd.grad(wanted, given, direction), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_trained_embedding_is_taken_apart_and_stays_what_it_is() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(500, 8)
    vectors[400:] = 0  # no words
    projection, own = torch.randn(8, 6), 0.01 * torch.randn(500, 6)
    weights = {model.EMBEDDING: vectors @ projection + own, "model.norm.weight": torch.ones(6)}
    parts = model.split_embedding(weights, vectors)
    assert model.EMBEDDING not in parts and torch.equal(parts["model.norm.weight"], torch.ones(6))
    assert torch.allclose(parts[model.PROJECTION], projection, atol=0.01)
    assert torch.allclose(parts[model.OWN] + vectors @ parts[model.PROJECTION], weights[model.EMBEDDING], atol=1e-5)
    assert torch.equal(parts[model.OWN][400:], weights[model.EMBEDDING][400:])
