"""Muon: an optimizer that makes the momentum of each matrix orthogonal before it takes a step.

The gradient of a weight matrix is dominated by a few directions, and Adam follows these. Muon
(Jordan et al. 2024) keeps the directions of the momentum but makes them equally long, so that rare
ones are learnt, too: a small network gets further in the same number of steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.cost import cost_of

SMALLEST = 16  # rows and columns: with fewer (depth-wise kernels) there is nothing to balance
MOMENTUM = 0.95
ADAM_RMS = 0.2  # root mean square of an AdamW step at rate 1, so that rates carry over
ROUNDS = 5
SHARE = 0.25  # most work for making matrices orthogonal, to the other work of a step
QUINTIC = (3.4445, -4.7750, 2.0315)  # drives singular values close to 1 in five rounds


class Muon(torch.optim.AdamW):
    """Steps along orthogonal momentum for inner weights, and as AdamW for all others.

    A weight of two or more dimensions counts as a matrix, its first dimension by all others. Inner
    weights are the matrices of at least 16 rows and columns, except the network's first and last,
    which face pixels. A network without any is trained by AdamW alone. Steps are scaled as in Liu
    et al. 2025 ("Muon is scalable for LLM training", Eq. 4), so that a learning rate for AdamW
    fits.

    Args:
        weights: parameters of a network, in its order.
        lr: learning rate of all weights.
        betas: of AdamW, for the others.
        weight_decay: decoupled, of all weights.

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
        weights = [weight for weight in inner["params"] if weight.grad is not None]
        for weight, direction in zip(weights, self._directions(weights), strict=True):
            length = ADAM_RMS * max(direction.shape) ** 0.5
            weight.mul_(1 - inner["lr"] * inner["weight_decay"])
            weight.add_(direction.view_as(weight), alpha=-inner["lr"] * length)
        self.param_groups = [others]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _directions(self, weights: list[Tensor]) -> Iterator[Tensor]:
        """Yield the direction (m, n) of each inner weight's step, its momentum updated."""
        ahead = map(self._ahead, weights)
        if weights and weights[0].is_cuda:
            return iter(orthogonal_together(list(ahead)))
        return map(orthogonal, ahead)

    def _ahead(self, weight: Tensor) -> Tensor:
        """Return the updated momentum of a weight, a gradient further (Nesterov), as a matrix."""
        state = self.state[weight]
        if not state:  # AdamW expects "step" when it loads a state
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(weight))
        state["step"] += 1
        grad: Tensor = weight.grad  # type: ignore[assignment]
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        return torch.lerp(momentum, grad, 1 - MOMENTUM).flatten(1)


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
    """Return whether Muon's own matrix products are little work beside the rest of a step.

    Their cost does not depend on the batch: with many weights and small crops they would take most
    of the time.

    Args:
        network: to train.
        image: (1, C, H, W) float, of a size that the network takes; the network is run on it once.
        pixels: number of pixels that the network sees in a step.

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


def orthogonal_together(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return what `orthogonal` makes of each matrix (m, n), in few calls for a GPU.

    Matrices whose heights have the same next power of two are padded with zeros to one size; the
    zeros stay zero.

    >>> [tuple(x.shape) for x in orthogonal_together([torch.eye(3, 4), torch.ones(9, 2)])]
    [(3, 4), (9, 2)]
    """
    wide = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    groups: dict[int, list[int]] = {}
    for index, matrix in enumerate(wide):
        groups.setdefault((matrix.shape[0] - 1).bit_length(), []).append(index)
    made: dict[int, Tensor] = {}
    for indices in groups.values():
        m, n = (max(wide[index].shape[side] for index in indices) for side in (0, 1))
        padded = [
            F.pad(wide[index], (0, n - wide[index].shape[1], 0, m - wide[index].shape[0]))
            for index in indices
        ]
        for index, found in zip(indices, orthogonal(torch.stack(padded)), strict=True):
            rows, columns = wide[index].shape
            made[index] = found[:rows, :columns]
    return [
        made[index].mT if matrix is not wide[index] else made[index]
        for index, matrix in enumerate(matrices)
    ]


def orthogonal(matrix: Tensor) -> Tensor:
    """Return matrices (..., m, n) with the same directions and singular values from 0.7 to 1.2.

    Five Newton-Schulz iterations with the quintic of Jordan et al.; no singular value
    decomposition. Singular values below about a thousandth of the largest stay smaller.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    add_product = torch.addmm if x.ndim == 2 else torch.baddbmm
    first, third, fifth = QUINTIC
    for _ in range(ROUNDS):
        square = x @ x.mT
        both = add_product(square, square, square, beta=third, alpha=fifth)
        x = add_product(x, both, x, beta=first)
    return x.mT if tall else x
