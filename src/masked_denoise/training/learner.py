"""The network in training, and what trains it: optimizer, precision and averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..checkpoint import load_weights
from ..compiled import CompiledForward
from ..errors import BackboneError
from ..hashing import Key, Purpose, hash_key
from ..modes import keeping_modes
from ..transfer import to_device
from .muon import Muon, pays
from .settings import FitSettings

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..denoiser import AsymmetricMaskDenoiser

EMA_RISE = 10.0  # steps: the decay of the average rises as step / (step + EMA_RISE)


class Learner:
    """Takes optimizer steps on the backbone of a denoiser, and averages its weights.

    Args:
        denoiser: moved to the accelerator's device and put in training mode.
        settings: of the run.
        accelerator: determines device, precision, accumulation and processes.

    Raises:
        BackboneError: the backbone has nothing to train, or cannot be copied for the average.
    """

    def __init__(
        self, denoiser: AsymmetricMaskDenoiser, settings: FitSettings, accelerator: Accelerator
    ) -> None:
        self.denoiser, self.settings, self.accelerator = denoiser, settings, accelerator
        self.weights = [p for p in denoiser.backbone.parameters() if p.requires_grad]
        if not self.weights:
            raise BackboneError("the backbone has no weights to train; there is nothing to fit")
        denoiser.train().to(accelerator.device)
        optimizer = _optimizer(self.weights, settings, accelerator.device)
        self.model, self.optimizer = accelerator.prepare(denoiser, optimizer)
        self.average: Any = _average(denoiser.backbone, settings.ema_decay)
        self.compiled: CompiledForward | None = None  # from the first batch on

    def backward(self, image: Tensor, batch: int, smoothness: float | None) -> Tensor:
        """Backpropagate the loss of one batch; step the optimizer after the last one to accumulate.

        Args:
            image: float (B, C, H, W) on the 0..1 scale.
            batch: its number, from which mask, stride, branch and dropout are drawn.
            smoothness: None in stage B, lambda in stage P.

        Returns:
            The loss, a scalar on the device.
        """
        seed, rank = self.settings.seed, self.accelerator.process_index
        if self.settings.compile and self.compiled is None:
            self.compiled = CompiledForward(self.denoiser.backbone)
        image = to_device(image, self.accelerator.device)
        _seed(image.device, hash_key(Key(seed, Purpose.NETWORK + rank, batch)))
        with self.accelerator.accumulate(self.model):
            loss = self.loss(image, batch, smoothness)
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients and self.settings.clip_norm:
                self.accelerator.clip_grad_norm_(self.weights, self.settings.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return loss.detach()

    def loss(self, image: Tensor, batch: int, smoothness: float | None) -> Tensor:
        """Return the loss of one batch, a scalar with its graph."""
        loss: Tensor = self.model(
            image, step=batch, sample=self.accelerator.process_index * len(image),
            seed=self.settings.seed, smoothness=smoothness, loss=self.settings.loss,
        )  # fmt: skip
        return loss

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def update_average(self, step: int) -> None:
        """Update the average of the weights after step number `step`, counted from 1."""
        if self.average is not None:
            self.average.update(self.denoiser.backbone, step=step)

    def averaged(self) -> dict[str, Tensor]:
        """Return the averaged weights, or the current ones if none are averaged; not a copy."""
        model = self.denoiser.backbone if self.average is None else self.average.module
        return dict(model.state_dict())

    def use(self, weights: dict[str, Tensor]) -> None:
        """Load weights into the backbone."""
        self.denoiser.backbone.load_state_dict(weights)

    def is_finite(self) -> bool:
        """Return whether every weight is a finite number."""
        with torch.no_grad():
            norms = torch._foreach_norm([p for p in self.weights if p.numel()], torch.inf)
            return bool(torch.stack(norms).isfinite().all())

    @contextmanager
    def with_averaged_weights(self) -> Iterator[AsymmetricMaskDenoiser]:
        """Lend the denoiser with the averaged weights, its backbone in evaluation mode.

        What it denoises is what a user will get: in the precision of `denoise`, not of training.
        """
        backbone = self.denoiser.backbone
        judged = backbone if self.average is None else self.average.module
        with keeping_modes(backbone):
            try:
                self.denoiser.backbone = judged.eval()
                yield self.denoiser
            finally:
                judged.eval()
                self.denoiser.backbone = backbone

    def state(self) -> dict[str, Any]:
        """Return the state for `load_state`; its tensors change with the next step."""
        scaler = getattr(self.accelerator, "scaler", None)
        return {
            "backbone": dict(self.denoiser.backbone.state_dict()),
            "average": None if self.average is None else dict(self.average.module.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state of a run.

        Raises:
            CheckpointError: the weights do not fit the backbone.
        """
        load_weights(self.denoiser.backbone, state["backbone"], "the checkpoint")
        if self.average is not None:
            load_weights(self.average.module, state["average"], "the checkpoint")
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        if state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def release(self) -> None:
        """Remove what training attached to the denoiser, and put it in evaluation mode."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.compiled is not None:
            self.compiled.remove()
        for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
            self.denoiser.__dict__.pop(name, None)  # what accelerate puts on a prepared module
        self.denoiser.eval()


def optimizer_for(denoiser: AsymmetricMaskDenoiser, settings: FitSettings) -> str:
    """Return what optimizer="auto" stands for: "muon", or "adamw" where Muon would take too long.

    Also "adamw" where the work of the network cannot be counted.
    """
    multiple = denoiser.traits.size_multiple
    side = multiple * math.ceil(settings.crop / max(denoiser.train_strides) / multiple)
    weight = next(denoiser.backbone.parameters(), torch.zeros(()))
    image = weight.new_zeros((1, denoiser.channels, side, side))
    pixels = settings.batch_size * settings.accumulate * settings.crop**2
    try:
        return "muon" if pays(denoiser.backbone, image, pixels) else "adamw"
    except RuntimeError:
        return "adamw"


def _optimizer(
    weights: list[nn.Parameter], settings: FitSettings, device: torch.device
) -> torch.optim.Optimizer:
    rate, betas, decay = settings.learning_rate, settings.betas, settings.weight_decay
    if settings.optimizer == "muon":
        return Muon(weights, lr=rate, betas=betas, weight_decay=decay)
    fused = device.type in ("cpu", "cuda") or None
    return torch.optim.AdamW(weights, lr=rate, betas=betas, weight_decay=decay, fused=fused)


def _average(network: nn.Module, decay: float) -> Any:
    """Return timm's moving average of the weights (buffers are copied); None for a decay of 0."""
    from timm.utils.model_ema import ModelEmaV3

    if not decay:
        return None
    try:
        return ModelEmaV3(
            network,
            decay=decay,
            use_warmup=True,
            warmup_gamma=EMA_RISE,
            warmup_power=1.0,
            exclude_buffers=True,
        )
    except RuntimeError as error:
        raise BackboneError(
            f"the backbone cannot be copied to average its weights: {error}; pass ema_decay=0, or "
            "make it work with copy.deepcopy"
        ) from error


def _seed(device: torch.device, number: int) -> None:
    """Seed the generators that a network on the device may draw from.

    torch.manual_seed seeds those of all devices, which takes longer.
    """
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)
