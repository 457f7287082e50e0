"""Models loaded by spandrel as backbones, and those that cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from masked_denoise import AsymmetricMaskDenoiser
from masked_denoise.errors import BackboneError, SettingError

REASON = "spandrel is an optional extra: pip install 'masked-denoise[spandrel]'"


@pytest.fixture(scope="module")
def spandrel() -> Any:
    return pytest.importorskip("spandrel", reason=REASON)


def dncnn(spandrel: Any, channels: int = 3, out_channels: int | None = None) -> Any:
    """Return a small denoiser as spandrel makes it from weights, with nothing downloaded."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    layers.append(nn.Conv2d(8, out_channels or channels, 3, padding=1))
    weights = {f"model.{key}": value for key, value in nn.Sequential(*layers).state_dict().items()}
    return spandrel.ModelLoader(device="cpu").load_from_state_dict(weights)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_loaded_model_is_a_backbone(spandrel: Any, channels: int, tmp_path: Path) -> None:
    model = dncnn(spandrel, channels)
    denoiser = AsymmetricMaskDenoiser(model, channels=channels)
    assert denoiser.backbone is model.model
    assert denoiser.backbone_name is None
    assert denoiser.traits.size_multiple == 1
    before = [parameter.clone() for parameter in model.model.parameters()]
    images = torch.rand(2, channels, 48, 48)
    denoiser.fit(images, steps=2, crop=32, progress=False, validation=False, device="cpu")
    after = list(denoiser.backbone.parameters())
    assert all(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    denoiser.save_pretrained(tmp_path)
    again = AsymmetricMaskDenoiser.from_pretrained(tmp_path, backbone=dncnn(spandrel, channels))
    picture = torch.rand(channels, 21, 30)
    assert torch.equal(again.denoise(picture), denoiser.denoise(picture))
    inner = AsymmetricMaskDenoiser.from_pretrained(
        tmp_path, backbone=dncnn(spandrel, channels).model
    )
    assert torch.equal(inner.denoise(picture), denoiser.denoise(picture))


def test_the_model_inside_does_as_well(spandrel: Any) -> None:
    model = dncnn(spandrel).model
    denoiser = AsymmetricMaskDenoiser(model)
    assert denoiser.backbone is model
    assert denoiser.denoise(torch.rand(3, 20, 25)).shape == (3, 20, 25)


def test_models_that_do_not_fit_say_why(spandrel: Any) -> None:
    with pytest.raises(BackboneError, match=r"turns 1 channels into 1, the images have 3.*=1"):
        AsymmetricMaskDenoiser(dncnn(spandrel, 1))
    larger = dncnn(spandrel)
    larger.scale = 4
    with pytest.raises(BackboneError, match="DnCNN makes images 4 times as large; one of scale 1"):
        AsymmetricMaskDenoiser(larger)
    plain = dncnn(spandrel)
    masked = spandrel.MaskedImageModelDescriptor(
        plain.model, plain.model.state_dict(), plain.architecture, "Inpainting", [], False, False,
        3, 3,
    )  # fmt: skip
    with pytest.raises(BackboneError, match="needs a mask beside the image"):
        AsymmetricMaskDenoiser(masked)


@pytest.mark.parametrize("wrong", [5, None, lambda image: image, {"model": nn.Identity()}])
def test_what_is_no_network_is_refused(wrong: Any) -> None:
    with pytest.raises(
        SettingError, match=r"a torch\.nn\.Module, the name of a registered backbone"
    ):
        AsymmetricMaskDenoiser(wrong)
