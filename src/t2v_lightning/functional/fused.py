from torch import Tensor


def fused_cosine_sums(h0: Tensor, h1: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor] | None:
    return None
