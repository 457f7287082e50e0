"""Loading is quick because first weights are not drawn; nothing but the time may change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from masked_denoise import (
    AsymmetricMaskDenoiser,
    from_pretrained,
    list_backbones,
    register_backbone,
)
from masked_denoise.backbones import registry
from masked_denoise.errors import WeightsError
from masked_denoise.weights import make_empty, sha256_of


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    list_backbones()  # those that are built in stay
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))


class Odd(nn.Module):
    """A network with all that could be lost when its first weights are not drawn."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(channels, 4, 3, padding=1)
        self.second.weight = self.first.weight  # tied
        self.last = nn.Conv2d(4, channels, 1)
        nn.init.trunc_normal_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.register_buffer("kernel", torch.full((1, 1, 3, 3), 1 / 9), persistent=False)
        self.register_buffer("table", torch.zeros(3).normal_(), persistent=True)
        self.shift = torch.linspace(0, 1, 4)[1].item()
        self.plain = torch.ones(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        y = self.last(self.first(x) + self.second(x) + self.shift) * self.plain
        blurred = nn.functional.conv2d(y[:, :1], self.kernel, padding=1)
        return y + blurred + self.table.sum()  # type: ignore[no-any-return]


def test_everything_of_a_network_comes_back(tmp_path: Path) -> None:
    register_backbone("odd-example")(Odd)
    torch.manual_seed(0)
    denoiser = AsymmetricMaskDenoiser("odd-example", passes=1)
    for _ in range(2):
        denoiser.backbone.train()(torch.rand(2, 3, 8, 8))  # running statistics
    denoiser.eval().save_pretrained(tmp_path, card=False)
    state = torch.get_rng_state()
    again = from_pretrained(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    image = torch.rand(3, 16, 18)
    assert torch.equal(again.denoise(image), denoiser.denoise(image))
    backbone: Any = again.backbone
    assert backbone.first.weight is backbone.second.weight
    assert backbone.norm.num_batches_tracked == 2
    assert all(weight.requires_grad for weight in backbone.parameters())
    again.train()(torch.rand(1, 3, 16, 16)).backward()
    assert backbone.last.weight.grad is not None


def test_first_weights_are_not_drawn() -> None:
    calls: list[str] = []

    class Spy(nn.Linear):
        def reset_parameters(self) -> None:
            before = torch.get_rng_state()
            super().reset_parameters()
            calls.append("drawn" if not torch.equal(before, torch.get_rng_state()) else "left")

    shapes = {"weight": (5, 4), "bias": (5,)}
    make_empty(lambda: Spy(4, 5), shapes)
    Spy(4, 5)
    assert calls == ["left", "drawn"]


def test_a_network_that_looks_at_its_first_weights_is_made_as_usual() -> None:
    class Proud(nn.Linear):
        def __init__(self) -> None:
            super().__init__(64, 64)
            nn.init.ones_(self.weight)
            if self.weight.mean() != 1:
                raise ValueError("these are not my weights")

    network = make_empty(Proud, {"weight": (64, 64), "bias": (64,)})
    assert torch.equal(network.weight, torch.ones(64, 64))


def test_the_trial_is_not_repeated(tmp_path: Path) -> None:
    runs = []

    class Counted(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            runs.append(x.shape)
            return super().forward(x)

    known = register_backbone("counted-example", size_multiple=1, global_skip=False)
    known(lambda channels=3: Counted(channels, channels, 1))
    denoiser = AsymmetricMaskDenoiser("counted-example")
    assert runs
    denoiser.save_pretrained(tmp_path, card=False)
    runs.clear()
    again = from_pretrained(tmp_path)
    assert not runs
    assert again.traits == denoiser.traits


def test_a_network_larger_than_its_weights_is_not_made() -> None:
    with pytest.raises(WeightsError, match="far larger"):
        make_empty(lambda: nn.Linear(2**13, 2**13), {"weight": (2, 2)})
    assert make_empty(lambda: nn.Linear(2**10, 2**10), {"weight": (2**10, 2**10)}).bias is not None


def test_a_compiled_network_is_saved_under_its_own_names(tmp_path: Path) -> None:
    denoiser = AsymmetricMaskDenoiser("fast-unet", backbone_args={"widths": (2, 4)})
    plain = denoiser.backbone
    denoiser.backbone = torch.compile(plain)  # type: ignore[assignment]
    denoiser.save_pretrained(tmp_path, card=False)
    again = from_pretrained(tmp_path)
    assert list(again.backbone.state_dict()) == list(plain.state_dict())


def test_half_precision_weights_come_back(tmp_path: Path) -> None:
    denoiser = AsymmetricMaskDenoiser("fast-unet", backbone_args={"widths": (2, 4)})
    denoiser.bfloat16().save_pretrained(tmp_path, card=False)
    again = from_pretrained(tmp_path)
    assert {weight.dtype for weight in again.parameters()} == {torch.float32}
    pairs = zip(again.parameters(), denoiser.parameters(), strict=True)
    assert all(torch.equal(a, b.float()) for a, b in pairs)


def test_a_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
