"""The registry of backbones, and what the two U-Nets promise beside the contract."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from masked_denoise import (
    AsymmetricMaskDenoiser,
    MaskScheme,
    Noise2Void,
    NothingHidden,
    create_backbone,
    list_backbones,
    register_backbone,
)
from masked_denoise.backbones import backbone_info, registry
from masked_denoise.errors import SettingError, UnknownNameError
from masked_denoise.hashing import Key
from masked_denoise.pixels import Grid
from masked_denoise.probe import is_blind, probe

PACKAGE = "masked_denoise.backbones."
PLACES = [(0, 0, 0), (1, 17, 3), (2, 31, 63), (0, 16, 40)]
BUILT_IN = ["dbsn", "deamnet", "dncnn", "fast-student", "fast-unet", "nafnet", "restormer", "unet"]
U_NETS = ["fast-unet", "unet"]
SMALL: dict[str, dict[str, object]] = {"unet": {"width": 8}}  # arguments that keep the tests fast


def small(name: str, channels: int = 3) -> nn.Module:
    """Return the network with random weights everywhere, also where it starts at zero."""
    torch.manual_seed(0)
    network = create_backbone(name, channels=channels, **SMALL.get(name, {}))
    with torch.no_grad():
        for parameter in network.parameters():
            if not bool(parameter.any()):
                parameter.normal_(0, 0.05)
    return network


def test_the_list_is_complete() -> None:
    ours = [n for n in list_backbones() if backbone_info(n).build.__module__.startswith(PACKAGE)]
    assert [name for name in ours if not name.endswith("-example")] == BUILT_IN
    assert list_backbones("*unet") == ["fast-unet", "unet"]
    assert list_backbones("*ormer*") == ["restormer"]
    assert list_backbones("nothing*") == []


@pytest.mark.parametrize("name", U_NETS)
def test_registered_facts_are_those_a_trial_finds(name: str) -> None:
    info, traits = backbone_info(name), probe(small(name), 3)
    assert traits.size_multiple == info.size_multiple
    assert traits.global_skip == info.global_skip
    assert traits.channels_last


@pytest.mark.parametrize("name", U_NETS)
def test_every_parameter_and_every_pixel_counts(name: str) -> None:
    network, multiple = small(name), backbone_info(name).size_multiple
    image = torch.rand(2, 3, 2 * multiple, multiple, requires_grad=True)
    network(image).square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not idle
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())
    assert bool(image.grad.any(1).all())


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("unet", {"width": 4}, [2.3431, 5.54824, 7.12053, 2.34297]),
        ("fast-unet", {"widths": (4, 6, 8)}, [-0.25905, 1.47256, 0.66909, -0.76876]),
    ],
)
@torch.no_grad()
def test_known_weights_give_known_numbers(
    name: str, arguments: dict[str, object], expected: list[float]
) -> None:
    """So that no change of a layer goes unnoticed where the recorded data are not there."""
    network = create_backbone(name, **arguments)
    for index, parameter in enumerate(network.parameters()):
        count = torch.arange(parameter.numel(), dtype=torch.float64).view(parameter.shape)
        fan = max(parameter[0].numel(), 1)
        parameter.copy_(torch.sin(1.7 * count + index) * (2.5 / fan) ** 0.5)
    image = torch.sin(torch.arange(6144, dtype=torch.float64) * 0.37).float().view(1, 3, 32, 64)
    output = network(image)[0]
    assert [output[c, y, x].item() for c, y, x in PLACES] == pytest.approx(expected, abs=1e-4)


def test_fast_unet_is_small_and_starts_as_no_correction() -> None:
    network = create_backbone("fast-unet")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert 400_000 <= count <= 600_000
    assert not bool(network(torch.rand(1, 3, 16, 24)).any())


@pytest.mark.parametrize("widths", [(4,), (4, 8), (2, 4, 4, 8, 8)])
def test_fast_unet_takes_any_number_of_levels(widths: tuple[int, ...]) -> None:
    network = create_backbone("fast-unet", channels=2, widths=widths)
    side = 2 ** (len(widths) - 1)
    assert network(torch.rand(1, 2, side, 3 * side)).shape == (1, 2, side, 3 * side)
    assert backbone_info("fast-unet", widths=widths).size_multiple == side
    denoiser = AsymmetricMaskDenoiser("fast-unet", backbone_args={"widths": widths})
    assert denoiser.denoise(torch.rand(3, 37, 45)).shape == (3, 37, 45)
    with pytest.raises(SettingError, match="widths"):
        create_backbone("fast-unet", widths=())


# -- the registry -----------------------------------------------------------------------------


@pytest.fixture
def clean_registry() -> Iterator[None]:
    """Forget what a test registers."""
    known = dict(registry._KNOWN)
    yield
    registry._KNOWN.clear()
    registry._KNOWN.update(known)


@pytest.mark.usefixtures("clean_registry")
def test_a_network_of_the_user_is_registered_and_made() -> None:
    @register_backbone("mine", size_multiple=4, license="MIT", source="here")
    class Mine(nn.Conv2d):
        def __init__(self, channels: int = 3, *, size: int = 3) -> None:
            super().__init__(channels, channels, size, padding=size // 2)

    assert "mine" in list_backbones()
    network = create_backbone("mine", channels=5, size=1)
    assert isinstance(network, Mine)
    assert network.weight.shape == (5, 5, 1, 1)
    assert backbone_info("mine").size_multiple == 4


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("name", ["unet", "mine"])
def test_a_name_is_given_once(name: str) -> None:
    if name == "mine":
        register_backbone(name)(lambda channels=3: nn.Identity())

    class UNet(nn.Module):  # the class name of a built-in network, which must not matter
        pass

    UNet.__qualname__ = "UNet"
    with pytest.raises(SettingError, match=f"'{name}' is taken"):
        register_backbone(name)(UNet)
    assert backbone_info(name).build is not UNet


@pytest.mark.usefixtures("clean_registry")
def test_the_same_network_may_be_registered_again() -> None:
    """As happens where a module or a notebook cell is run twice."""
    info = backbone_info("unet")
    register_backbone("unet", size_multiple=32)(info.build)
    assert backbone_info("unet").build is info.build


def test_a_built_in_name_is_taken_before_any_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built-in networks load late; a name of theirs is refused all the same, and nothing breaks."""
    monkeypatch.setattr(registry, "_KNOWN", {})
    for module in registry._BUILT_IN:
        monkeypatch.delitem(sys.modules, f"masked_denoise.backbones.{module}")
    with pytest.raises(SettingError, match="'unet' is taken"):
        register_backbone("unet")(lambda channels=3: nn.Identity())
    assert list_backbones() == BUILT_IN
    assert type(create_backbone("unet", width=2)).__name__ == "UNet"


def test_unknown_names_suggest_the_nearest() -> None:
    for ask in (create_backbone, backbone_info):
        with pytest.raises(UnknownNameError, match="did you mean 'fast-unet'"):
            ask("fastunet")
    with pytest.raises(SettingError, match="channels is 0"):
        create_backbone("unet", channels=0)


# -- facts and arguments --------------------------------------------------------------------------


@pytest.mark.usefixtures("clean_registry")
def test_facts_may_depend_on_the_arguments() -> None:
    @register_backbone(
        "levels",
        size_multiple=lambda arguments: 2 ** arguments["levels"],
        global_skip=lambda arguments: arguments["mode"] == "skip",
        blind=lambda arguments: arguments["more"] > 1,
    )
    def build(channels: int = 3, *, levels: int = 3, mode: str = "", **others: int) -> nn.Module:
        return nn.Identity()

    info = backbone_info("levels", more=1)
    assert (info.size_multiple, info.global_skip, info.blind) == (8, False, False)
    info = backbone_info("levels", levels=1, mode="skip", more=2)
    assert (info.size_multiple, info.global_skip, info.blind) == (2, True, True)
    assert info.build is build
    denoiser = AsymmetricMaskDenoiser("levels", backbone_args={"levels": 4, "more": 2})
    assert denoiser.traits.size_multiple == 16
    assert denoiser.traits.blind
    with pytest.raises(SettingError, match=r"'levels' cannot be made with levels='a'"):
        backbone_info("levels", levels="a", more=1)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("unet", {"wide": 3}, r"with wide=3: .*unexpected keyword.*; it takes width=48$"),
        ("unet", {"width": -1}, r"with width=-1: .*negative dimension.*; it takes width=48$"),
        ("unet", {"width": "a"}, r"with width='a': .*; it takes width=48$"),
        ("fast-unet", {"widths": 3}, r"with widths=3: .*; it takes widths=\(16, 32, 64, 128\)$"),
    ],
)
def test_unusable_arguments_are_told_with_those_it_takes(
    name: str, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingError, match=message) as caught:
        create_backbone(name, **arguments)
    assert caught.value.__cause__ is not None
    with pytest.raises(SettingError, match=message):
        AsymmetricMaskDenoiser(name, backbone_args=arguments)


@pytest.mark.usefixtures("clean_registry")
def test_faults_of_a_network_itself_are_not_blamed_on_arguments() -> None:
    @register_backbone("faulty")
    def build(channels: int = 3, *, size: int = 1) -> nn.Module:
        raise RuntimeError("its own")

    with pytest.raises(RuntimeError, match=r"^its own$"):
        create_backbone("faulty")


@pytest.mark.parametrize("channels", [0, -3, 1.5, "3"])
def test_channels_are_a_positive_whole_number(channels: Any) -> None:
    with pytest.raises(SettingError, match="channels is"):
        create_backbone("unet", channels=channels)


# -- blind-spot networks --------------------------------------------------------------------------


class Ring(nn.Conv2d):
    """A convolution that cannot see the middle of its window."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(self.weight)
        mask[:, :, 1, 1] = 0
        return nn.functional.conv2d(image, self.weight * mask, self.bias, padding=1)


def ring(channels: int = 3) -> nn.Module:
    return nn.Sequential(Ring(channels, 8, 3), nn.ReLU(), nn.Conv2d(8, channels, 1))


def caution(**given: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        AsymmetricMaskDenoiser(**given)
    assert all(one.filename == __file__ for one in caught)
    return [str(one.message) for one in caught]


def test_blindness_is_measured_whatever_the_weights_are() -> None:
    torch.manual_seed(0)
    blind, seeing = ring(), nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1))
    state = copy.deepcopy([blind.state_dict(), seeing.state_dict()])
    random_state = torch.get_rng_state()
    assert is_blind(blind, 3, 1) is True
    assert is_blind(seeing, 3, 1) is False
    assert torch.equal(torch.get_rng_state(), random_state)
    for network, before in zip((blind, seeing), state, strict=True):
        assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
        assert network.training
    for value in (0.0, float("nan")):  # as at the start, and as before stored weights are read
        with torch.no_grad():
            for parameter in (*blind.parameters(), *seeing.parameters()):
                parameter.fill_(value)
        assert is_blind(blind, 3, 1) is True
        assert is_blind(seeing, 3, 1) is False
    assert is_blind(nn.Identity(), 3, 1) is False
    assert is_blind(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Threshold(1e9, 0.0)), 3, 1) is None
    assert is_blind(ring().double(), 3, 1) is True


@pytest.mark.parametrize("name", BUILT_IN)
def test_declared_blindness_is_what_is_measured(name: str) -> None:
    info = backbone_info(name)
    small_ones: dict[str, dict[str, object]] = {
        "dbsn": {"width": 8, "blocks": 2}, "unet": {"width": 8},
        "restormer": {"dim": 8, "blocks": (1, 1, 1, 1), "refinement_blocks": 1},
        "nafnet": {"width": 4}, "deamnet": {"width": 8}, "dncnn": {"width": 8, "depth": 4},
    }  # fmt: skip
    network = create_backbone(name, **small_ones.get(name, {}))
    assert is_blind(network, 3, info.size_multiple) is info.blind


def test_hiding_nothing_from_a_network_that_sees_everything_warns() -> None:
    (message,) = caution(backbone="fast-unet", scheme=NothingHidden())
    assert "NothingHidden() hides no pixel" in message
    assert "RandomPartition(2)" in message
    assert caution(backbone=nn.Conv2d(3, 3, 3, padding=1), scheme=NothingHidden())
    assert caution(
        backbone="dbsn",
        backbone_args={"width": 8, "blocks": 2, "dilated": False},
        scheme=NothingHidden(),
    )


def test_blind_networks_and_schemes_that_hide_do_not_warn() -> None:
    assert not caution(backbone=ring(), scheme=NothingHidden())
    assert not caution(
        backbone="dbsn", backbone_args={"width": 8, "blocks": 2}, scheme=NothingHidden()
    )
    assert not caution(backbone="fast-unet")
    assert not caution(backbone="fast-unet", scheme=Noise2Void())


@pytest.mark.usefixtures("clean_registry")
def test_a_declaration_is_taken_at_its_word() -> None:
    """A network may be blind in a way that random weights do not show."""
    register_backbone("trusted", blind=True)(lambda channels=3: nn.Conv2d(channels, channels, 1))
    assert not caution(backbone="trusted", scheme=NothingHidden())

    class Blind(MaskScheme):
        branches, blind = 1, True

        def label(self, grid: Grid, key: Key) -> torch.Tensor:
            return torch.zeros(grid.shape, dtype=torch.uint8)

    assert caution(backbone="fast-unet", scheme=Blind())
