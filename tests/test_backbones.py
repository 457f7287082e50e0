"""The contract of a backbone, over every registered name; and the registry itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from masked_denoise import create_backbone, list_backbones, register_backbone
from masked_denoise.backbones import BackboneInfo, backbone_info, registry
from masked_denoise.errors import SettingError, UnknownNameError
from masked_denoise.probe import probe

PLACES = [(0, 0, 0), (1, 17, 3), (2, 31, 63), (0, 16, 40)]
BUILT_IN = ["fast-unet", "unet"]
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
    names = [name for name in list_backbones() if not name.endswith("-example")]
    assert names == BUILT_IN
    assert list_backbones("*unet") == ["fast-unet", "unet"]
    assert list_backbones("nothing*") == []


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", BUILT_IN)
def test_shape_is_kept_at_multiples_of_the_size(name: str, channels: int) -> None:
    multiple = backbone_info(name).size_multiple
    network = small(name, channels)
    for times in ((1, 1), (1, 3), (2, 1)):
        image = torch.rand(2, channels, times[0] * multiple, times[1] * multiple)
        output = network(image)
        assert output.shape == image.shape
        assert output.dtype == image.dtype
        assert bool(output.isfinite().all())


@pytest.mark.parametrize("name", BUILT_IN)
def test_registered_facts_are_those_a_trial_finds(name: str) -> None:
    info, traits = backbone_info(name), probe(small(name), 3)
    assert traits.size_multiple == info.size_multiple
    assert traits.global_skip == info.global_skip
    assert traits.channels_last


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_parameter_and_every_pixel_counts(name: str) -> None:
    network, multiple = small(name), backbone_info(name).size_multiple
    image = torch.rand(2, 3, 2 * multiple, multiple, requires_grad=True)
    network(image).square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not idle
    assert image.grad is not None
    assert bool(image.grad.isfinite().all())
    assert bool(image.grad.any(1).all())


@pytest.mark.parametrize("name", BUILT_IN)
@torch.no_grad()
def test_memory_layout_and_batch_do_not_matter(name: str) -> None:
    network, multiple = small(name).eval(), backbone_info(name).size_multiple
    image = torch.rand(3, 3, multiple, 2 * multiple)
    kept = image.clone()
    output = network(image)
    assert torch.equal(image, kept)
    torch.testing.assert_close(network(image[1:2]), output[1:2])
    network.to(memory_format=torch.channels_last)
    last = network(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, output)


@pytest.mark.parametrize("name", BUILT_IN)
def test_weights_can_be_saved_and_loaded(name: str) -> None:
    multiple = backbone_info(name).size_multiple
    first, second = small(name), small(name)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.zero_()
    second.load_state_dict(first.state_dict(), strict=True)
    image = torch.rand(1, 3, multiple, multiple)
    assert torch.equal(first(image), second(image))


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_backbone_names_its_licence_and_its_source(name: str) -> None:
    info = backbone_info(name)
    assert isinstance(info, BackboneInfo)
    assert info.name == name
    assert info.license == "Apache-2.0"
    assert info.source
    assert info.note


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
    for module in ("fast_unet", "unet"):
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
