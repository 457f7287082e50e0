"""The optimizer Muon: against a singular value decomposition, AdamW, and a run of it resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.errors import CheckpointError, SettingError
from masked_denoise.training.muon import Muon, orthogonal, orthogonal_together, split


@pytest.mark.parametrize("shape", [(24, 24), (24, 90), (90, 24)])
def test_directions_stay_and_become_equally_long(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    uneven = u @ torch.diag(torch.logspace(0, -2, len(values))) @ vh
    made = orthogonal(uneven)
    within = u.mT @ made @ vh.mT  # diagonal where the directions stayed
    assert float(within.diagonal().min()) > 0.6
    assert float(within.diagonal().max()) < 1.25
    off = within - torch.diag(within.diagonal())
    assert float(off.abs().max()) < 1e-3


def test_padded_together_matrices_become_what_they_do_alone() -> None:
    torch.manual_seed(0)
    shapes = [(24, 90), (90, 24), (17, 17), (32, 288), (48, 32), (64, 20), (24, 90)]
    matrices = [10 ** (place - 3) * torch.randn(shape) for place, shape in enumerate(shapes)]
    for alone, together in zip(
        map(orthogonal, matrices), orthogonal_together(matrices), strict=True
    ):
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert orthogonal_together([]) == []


def test_no_gradient_is_no_direction() -> None:
    assert not orthogonal(torch.zeros(20, 30)).any()


def test_first_and_last_and_narrow_weights_are_left_to_adamw() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 32, 3, groups=32),
        nn.Conv2d(32, 48, 1), nn.Conv2d(48, 3, 3),
    )  # fmt: skip
    inner, others = split(network.parameters())
    assert [tuple(weight.shape) for weight in inner] == [(32, 32, 3, 3), (48, 32, 1, 1)]
    assert len(others) == 8


def test_others_step_as_adamw_does() -> None:
    torch.manual_seed(0)
    first, other = nn.Linear(20, 20), nn.Linear(20, 20)
    other.load_state_dict(first.state_dict())
    mine = Muon(first.parameters(), lr=0.01, weight_decay=0.1)
    theirs = torch.optim.AdamW(other.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for _ in range(3):
        for network, optimizer in ((first, mine), (other, theirs)):
            optimizer.zero_grad()
            network(torch.ones(1, 20)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(first.weight, other.weight)
    torch.testing.assert_close(first.bias, other.bias)


def test_a_step_with_infinite_gradients_is_left_out_whole() -> None:
    """Under fp16 the scaler leaves that to a fused AdamW, which knows nothing of inner weights."""
    torch.manual_seed(0)
    network = nn.Sequential(*[nn.Linear(32, 32) for _ in range(3)])
    before = [weight.detach().clone() for weight in network.parameters()]
    scaler, optimizer = torch.amp.GradScaler("cpu"), Muon(network.parameters(), lr=0.01)
    scaler.scale(1e38 * network(torch.ones(1, 32)).square().sum()).backward()
    assert not all(torch.isfinite(weight.grad).all() for weight in network.parameters())
    scaler.step(optimizer)
    assert all(map(torch.equal, before, network.parameters()))
    scaler.update()


def test_a_step_is_as_long_as_one_of_adamw() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(3)])
    before = network[1].weight.detach().clone()
    optimizer = Muon(network.parameters(), lr=0.01)
    network(torch.randn(256, 64)).square().mean().backward()
    optimizer.step()
    change = (network[1].weight.detach() - before).square().mean().sqrt()
    assert float(change) == pytest.approx(0.01 * 0.2, rel=0.25)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1),
            nn.Conv2d(16, 3, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def fitted(path: Path, steps: int, **settings: object) -> AsymmetricMaskDenoiser:
    torch.manual_seed(0)
    return AsymmetricMaskDenoiser(Small(), preset="default").fit(
        torch.rand(2, 3, 48, 48), steps=6, crop=32, output=path, save_every=1, progress=False,
        validation=False, callback=None if steps == 6 else _stop_at(steps), **settings,
    )  # fmt: skip


def _stop_at(steps: int):  # type: ignore[no-untyped-def]
    def stop(entry: dict[str, float]) -> None:
        if entry["step"] >= steps:
            raise KeyboardInterrupt

    return stop


def test_a_run_is_resumed_with_its_momentum(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "whole", 6, optimizer="muon")
    stopped = fitted(tmp_path / "parts", 3, optimizer="muon")
    assert stopped.fit_record["stopped"] == "interrupted"
    resumed = fitted(tmp_path / "parts", 6, optimizer="muon", resume=True)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_another_optimizer_does_not_go_on(tmp_path: Path) -> None:
    fitted(tmp_path, 3, optimizer="muon")
    with pytest.raises(CheckpointError, match="optimizer: muon then, adamw now"):
        fitted(tmp_path, 6, optimizer="adamw", resume=True)


class Heavy(nn.Module):
    """Few multiply-adds a pixel, and matrices of 256 x 256 to make orthogonal."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 256, 8, 8), nn.ConvTranspose2d(256, 3, 8, 8)
        self.inner = nn.Sequential(*(nn.Conv2d(256, 256, 1) for _ in range(2)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(self.first(image)))


def chosen(network: nn.Module, **settings: object) -> str:
    settings = {"steps": 1, "crop": 32, "progress": False, "validation": False} | settings
    denoiser = AsymmetricMaskDenoiser(network, preset="default", train_stride=1)
    return denoiser.fit(torch.rand(2, 3, 64, 64), **settings).fit_record["settings"]["optimizer"]


def test_muon_is_taken_where_it_takes_little_of_a_step() -> None:
    assert chosen(Small()) == "muon"
    assert chosen(Heavy()) == "adamw"
    assert chosen(Heavy(), batch_size=64, crop=64, accumulate=4) == "muon"
    assert chosen(Heavy(), optimizer="muon") == "muon"
    assert chosen(Small(), optimizer="adamw") == "adamw"


def test_networks_whose_work_cannot_be_counted_take_adamw(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no form under a counter")

    monkeypatch.setattr("masked_denoise.training.muon.cost_of", fail)
    assert chosen(Small()) == "adamw"


def test_the_optimizer_that_was_chosen_goes_on(tmp_path: Path) -> None:
    fitted(tmp_path, 3, optimizer="adamw")
    resumed = fitted(tmp_path, 6, optimizer="auto", resume=True)
    assert resumed.fit_record["settings"]["optimizer"] == "adamw"


def test_unknown_optimizers_are_refused() -> None:
    with pytest.raises(SettingError, match="'sgd'; one of adamw, muon, auto is needed"):
        AsymmetricMaskDenoiser(Small()).fit(
            torch.rand(1, 3, 32, 32), steps=1, optimizer="sgd", progress=False
        )
