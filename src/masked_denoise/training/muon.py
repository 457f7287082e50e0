"""Muon: momentum whose every matrix is made orthogonal before it becomes a step.

The gradient of a weight matrix is dominated by few directions, and Adam follows these. Muon
(Jordan et al. 2024) keeps the momentum's directions and makes all of them equally long, so that the
rare ones are learnt, too: a small network gets further in the same number of steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..backbones.cost import cost_of

SMALLEST = 16  # rows or columns: below (depth-wise kernels, biases) there is nothing to balance
MOMENTUM = 0.95
ADAM_RMS = 0.2  # root mean square of a step of AdamW at rate 1, so that rates carry over
ROUNDS = 5
SHARE = 0.25  # of the work of a step: what making matrices orthogonal may come to
QUINTIC = (3.4445, -4.7750, 2.0315)  # drives singular values to near 1 in five rounds


class Muon(torch.optim.AdamW):
    """Steps along orthogonal momentum for inner weights, and as AdamW does for all others.

    Inner weights are those of two dimensions or more but the first and the last of them, which face
    pixels; a kernel counts as a matrix, its first dimension by all others. A network that has no
    such weights is trained by AdamW alone. Steps are scaled as Liu et al. 2025 ("Muon is scalable
    for LLM training", Eq. 4) do, so that a learning rate of AdamW fits.

    Args:
        weights: parameters of a network, in its order.
        lr: learning rate of all.
        betas: of AdamW for the others.
        weight_decay: decoupled, of all.

    >>> weights = [torch.nn.Parameter(torch.randn(16, 16, 3, 3)) for _ in range(3)]
    >>> optimizer = Muon(weights, lr=0.01)
    >>> [len(group["params"]) for group in optimizer.param_groups]
    [1, 2]
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        inner, others = split(weights)
        groups = [{"params": inner}, {"params": others}]
        device = others[0].device.type if others else "cpu"
        fused = device in ("cpu", "cuda") or None
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay, fused=fused)
        self._step_supports_amp_scaling = False  # a skipped step is skipped for inner weights, too

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = inner, others = self.param_groups
        for weight in inner["params"]:
            if weight.grad is not None:
                self._step_inner(weight, weight.grad, inner["lr"], inner["weight_decay"])
        self.param_groups = [others]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_inner(self, weight: Tensor, grad: Tensor, rate: float, decay: float) -> None:
        state = self.state[weight]
        if not state:  # AdamW looks for "step" where it loads a state
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
        state["step"] += 1
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        ahead = torch.lerp(momentum, grad, 1 - MOMENTUM)  # Nesterov
        direction = orthogonal(ahead.flatten(1))
        length = ADAM_RMS * max(direction.shape) ** 0.5
        weight.mul_(1 - rate * decay).add_(direction.view_as(ahead), alpha=-rate * length)


def split(weights: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the inner weights and the others, each in order."""
    weights = list(weights)
    matrices = [i for i, weight in enumerate(weights) if weight.ndim >= 2]
    inner = {i for i in matrices[1:-1] if min(weights[i].flatten(1).shape) >= SMALLEST}
    return (
        [weight for i, weight in enumerate(weights) if i in inner],
        [weight for i, weight in enumerate(weights) if i not in inner],
    )


def pays(network: nn.Module, image: Tensor, pixels: int) -> bool:
    """Return whether Muon's own matrix products are little beside the other work of a step.

    They do not depend on the batch: a network of many weights on small crops would spend most of
    its time on them.

    Args:
        network: to train.
        image: (1, C, H, W) float, of a size that the network takes; it is run on it once.
        pixels: that the network sees in a step.

    >>> wide = nn.Sequential(*(nn.Conv2d(64, 64, 1) for _ in range(3)))
    >>> [pays(wide, torch.zeros(1, 64, 8, 8), pixels) for pixels in (100, 10_000)]
    [False, True]
    """
    inner, _ = split(weight for weight in network.parameters() if weight.requires_grad)
    sides = [sorted(weight.flatten(1).shape) for weight in inner]
    own = sum(ROUNDS * (2 * m * m * n + m**3) for m, n in sides)
    with torch.random.fork_rng(devices=[]):
        step = 3 * pixels * cost_of(network, image).macs_per_pixel  # forward, backward twice that
    return own <= SHARE * step


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix (m, n) of the same directions, its singular values between 0.7 and 1.2.

    Five rounds of Newton and Schulz's iteration with the quintic of Jordan et al.; no singular
    value decomposition. Directions of less than about a thousandth of the largest stay shorter.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.mT if tall else matrix
    x = x / (torch.linalg.matrix_norm(x) + 1e-12)
    first, third, fifth = QUINTIC
    for _ in range(ROUNDS):
        square = x @ x.mT
        both = torch.addmm(square, square, square, beta=third, alpha=fifth)
        x = torch.addmm(x, both, x, beta=first)
    return x.mT if tall else x
