"""What the paper's reference implementation computes, recorded: ours must give the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from masked_denoise import (
    AsymmetricMaskDenoiser,
    MaskScheme,
    PixelDownsample,
    create_backbone,
    mask_loss,
)
from masked_denoise.hashing import Key
from masked_denoise.ops import fill_hidden, merge_branches
from masked_denoise.ops.reference import refine
from masked_denoise.pixels import Grid


class Recorded(MaskScheme):
    """Zero fill, and the masks that were recorded, whatever is asked for."""

    fill = "zero"

    def __init__(self, partition: Tensor) -> None:
        self.partition = partition.to(torch.uint8)
        self.branches = int(partition.max()) + 1

    def label(self, grid: Grid, key: Key) -> Tensor:
        assert grid.shape == self.partition.shape
        return self.partition


def load(shared: Path, name: str) -> dict[str, Tensor]:
    return load_file(shared / "golden" / f"{name}.safetensors")


def recorded_unet(data: dict[str, Tensor], prefix: str = "weights.") -> nn.Module:
    weights = {k.removeprefix(prefix): v for k, v in data.items() if k.startswith(prefix)}
    network = create_backbone("unet", width=len(weights["enc_conv0.bias"]))
    network.load_state_dict(weights, strict=True)
    return network.eval()


def check(ours: Tensor, recorded: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(ours, recorded, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("stride", [2, 5])
def test_pixel_downsample(shared: Path, stride: int) -> None:
    data = load(shared, "pixel_downsample")
    image, expected = data[f"pd{stride}_in"], data[f"pd{stride}_out"]
    pixels = PixelDownsample(stride)
    assert torch.equal(pixels.down(image), expected)
    assert torch.equal(pixels.up(expected), image)


@torch.no_grad()
def test_unet(shared: Path) -> None:
    data = load(shared, "backbone_unet")
    arguments = json.loads((shared / "golden" / "backbones.json").read_text())["unet"]
    network = recorded_unet(data)
    assert len(data["weights.enc_conv0.bias"]) == arguments["reference_arguments"]["n_feature"]
    assert sum(p.numel() for p in network.parameters()) == arguments["parameters"]
    check(network(data["input"]), data["output"])


@torch.no_grad()
def test_unet_of_a_published_checkpoint(shared: Path) -> None:
    path = shared / "golden" / "published_layout_unet.ckpt"
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    network = recorded_unet(state, "net.dn.branches.0.")
    data = load(shared, "published_layout_unet")
    check(network(data["input"]), data["output"])


def test_unet_has_the_parameters_of_the_published_one(shared: Path) -> None:
    path = shared / "golden" / "published_checkpoints.json"
    published = json.loads(path.read_text())["amsnet-unet-sidd"]
    with torch.device("meta"):
        ours = create_backbone("unet", width=published["reference_arguments"]["n_feature"])
    shapes = {f"net.dn.branches.0.{k}": list(v.shape) for k, v in ours.state_dict().items()}
    assert shapes == published["state_dict"]


@pytest.mark.parametrize("groups", [2, 3])
def test_denoise(shared: Path, groups: int) -> None:
    data = load(shared, "scheme")
    denoiser = AsymmetricMaskDenoiser(
        recorded_unet(data),
        scheme=Recorded(data[f"k{groups}_partition"]),
        stride=2,
        passes=1,
        refine=False,
        residual=False,
        observation=0.0,
        chroma_radius=0,
        dct_threshold=0.0,
    )
    assert denoiser.scheme.branches == groups
    check(denoiser.denoise(data["image"]), data[f"k{groups}_denoised"])


def test_losses(shared: Path) -> None:
    data = load(shared, "scheme")
    pixels = PixelDownsample(5)
    output, target = pixels.down(data["loss_output"]), pixels.down(data["loss_image"])
    scheme = Recorded(data["loss_partition"])
    label = data["loss_partition"]
    losses = [mask_loss(output, target, scheme.scored(label, i)) for i in range(scheme.branches)]
    check(losses[0].view(1), data["loss_first_branch"], 1e-6)
    check(sum(losses).view(1), data["loss_all_branches"], 1e-6)  # type: ignore[union-attr]


@torch.no_grad()
def test_plain_refinement(shared: Path) -> None:
    data = load(shared, "scheme")
    network = recorded_unet(data)
    result = refine(
        data["image"],
        data["r3_denoised_in"],
        lambda replaced, draw: network(replaced),
        data["r3_replace"][:, None],
    )
    check(result, data["r3_out"])


@torch.no_grad()
def test_masked_refinement(shared: Path) -> None:
    data = load(shared, "refinement_masked")
    network = recorded_unet(data)

    def run(replaced: Tensor, draw: int) -> Tensor:
        hidden = [data["partition"][draw][None] == branch for branch in range(2)]
        outputs = [network(fill_hidden(replaced, mask, "zero")) for mask in hidden]
        return merge_branches(outputs, hidden)

    result = refine(data["image"], data["denoised_in"], run, data["replace"][:, None])
    check(result, data["out"])
