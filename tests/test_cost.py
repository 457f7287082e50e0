"""What backbones cost: counted, and compared with counts by hand and with published ones."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from masked_denoise import list_backbones, register_backbone
from masked_denoise.backbones import registry
from masked_denoise.backbones.cost import cost, cost_of, count_parameters
from masked_denoise.cli import app
from masked_denoise.errors import SettingError, UnknownNameError


def macs(network: nn.Module, device: str = "meta") -> float:
    """Return the multiply-adds of a network on a picture of 16 x 8 pixels and 4 channels."""
    return cost_of(network.to(device), torch.zeros(2, 4, 16, 8, device=device)).macs_per_pixel


class Attention(nn.Module):
    """Pixels attend to one another: two products of 128 x 128 x 4 an image."""

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(2).mT[:, None]
        return F.scaled_dot_product_attention(x, x, x)[:, 0].mT.view(image.shape)


class Channels(nn.Module):
    """Channels attend to one another: two products of 4 x 4 x 128 an image."""

    def forward(self, image: Tensor) -> Tensor:
        x = image.flatten(2)
        y = torch.einsum("bij,bjn->bin", (x @ x.mT).softmax(-1), x)
        return y.view(image.shape)


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (nn.Conv2d(4, 6, 3, padding=1), 9 * 4 * 6),
        (nn.Conv2d(4, 6, 1, bias=False), 4 * 6),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), 9 * 4),
        (nn.Conv2d(4, 6, 2, stride=2), 4 * 4 * 6 / 4),
        (nn.Conv2d(4, 6, 3, padding=2, dilation=2), 9 * 4 * 6),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), 4 * 4 * 6),
        (nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.GELU()), 16),
        (Attention(), 2 * 128 * 4),
        (Channels(), 2 * 4 * 4),
        (nn.Identity(), 0),
    ],
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_counts_are_those_by_hand(network: nn.Module, expected: float, device: str) -> None:
    assert macs(network if device == "meta" else _fresh(network), device) == expected


def _fresh(network: nn.Module) -> nn.Module:
    """Return the network with values, which an earlier test may have taken from it."""
    return network.to_empty(device="cpu") if any(True for _ in network.parameters()) else network


@pytest.mark.parametrize(
    ("width", "macs", "parameters"), [(48, 297, 1_259_475), (128, 1101, 7_935_555)]
)
def test_the_published_unet(width: int, macs: int, parameters: int) -> None:
    found = cost("unet", width=width)
    assert round(found.macs_per_pixel / 1000) == macs
    assert found.parameters == count_parameters("unet", width=width) == parameters


def test_channels_of_the_picture_count() -> None:
    one, three = cost("unet", channels=1, width=4), cost("unet", channels=3, width=4)
    pixel = 9 * 2 * 4 + 9 * 2 * 96 + 2 * 96  # two more channels into two layers, out of one
    assert three.macs_per_pixel - one.macs_per_pixel == pixel
    assert three.parameters - one.parameters == pixel + 2  # and two more biases


def test_counting_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4).eval())
    state = torch.random.get_rng_state()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    macs(network, "cpu")
    assert network[0].training
    assert not network[1].training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.fixture
def clean_registry() -> Iterator[None]:
    """Forget what a test registers."""
    known = dict(registry._KNOWN)
    yield
    registry._KNOWN.clear()
    registry._KNOWN.update(known)


@pytest.mark.usefixtures("clean_registry")
def test_a_network_that_needs_values_is_run_on_a_small_picture() -> None:
    seen = []

    @register_backbone("valued", size_multiple=6)
    class Valued(nn.Conv2d):
        def __init__(self, channels: int = 3) -> None:
            super().__init__(channels, channels, 3, padding=1)

        def forward(self, image: Tensor) -> Tensor:
            y = super().forward(image)
            seen.append(tuple(image.shape[2:]))
            return y if y.sum().item() < 1e9 else image

    state = torch.random.get_rng_state()
    assert cost("valued") == (9 * 9 + 3, 81)
    assert seen == [(258, 258), (66, 66)]
    assert torch.equal(state, torch.random.get_rng_state())


def test_wrong_names_and_arguments() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'unet'"):
        cost("unett")
    with pytest.raises(SettingError):
        cost("fast-unet", widths=())


# The command


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["backbones", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_the_command_lists_what_they_cost() -> None:
    text = run("*unet").output
    row = next(line for line in text.splitlines() if "fast-unet" in line)
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["fast-unet", "0.40 M", "28 k", "x 8", "no", "Apache-2.0", "-"]
    assert "unet: five levels" in text
    assert "weights: amsnet-unet-sidd" in text
    assert "dncnn" not in text


def test_the_command_prints_json() -> None:
    told = {one["name"]: one for one in json.loads(run("--json", "--channels", 1).output)}
    assert set(told) == set(list_backbones())
    unet = told["unet"]
    assert unet["parameters"] == count_parameters("unet", channels=1)
    assert unet["size_multiple"] == 32
    assert unet["weights"] == ["amsnet-unet-sidd"]
    assert told["fast-unet"]["weights"] == []


def test_a_pattern_that_fits_nothing_suggests_the_nearest() -> None:
    assert "did you mean 'fast-unet'" in " ".join(run("fastunet", code=2).output.split())
