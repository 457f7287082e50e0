"""U-Nets around encoders of timm: three families, and what cannot be an encoder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from masked_denoise import AsymmetricMaskDenoiser, create_backbone
from masked_denoise.backbones import backbone_info, timm_unet
from masked_denoise.errors import SettingError, UnknownNameError
from masked_denoise.probe import is_blind, probe

FAMILIES = {
    "convnext": ("test_convnext", "convnext_atto"),
    "resnet": ("test_resnet", "resnet10t"),
    "efficientnet": ("test_efficientnet", "efficientnet_lite0"),
}
KNOWN = timm.list_models()
NAMES = [next(name for name in names if name in KNOWN) for names in FAMILIES.values()]


def small(name: str, channels: int = 3, **arguments: Any) -> nn.Module:
    """Return the network with random weights everywhere, also where it starts at zero."""
    torch.manual_seed(0)
    network = create_backbone(f"timm:{name}", channels=channels, width=8, **arguments)
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_shape_is_kept_and_every_parameter_is_trained(name: str, channels: int) -> None:
    multiple = backbone_info(f"timm:{name}").size_multiple
    assert multiple == 32
    network = small(name, channels).train()
    image = torch.rand(2, channels, multiple, 2 * multiple, requires_grad=True)
    output = network(image)
    assert output.shape == image.shape
    output.square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not idle
    assert image.grad is not None
    assert bool(image.grad.any(1).all())


@pytest.mark.parametrize("name", NAMES)
def test_chosen_maps_make_a_smaller_network(name: str) -> None:
    """No weights are left over, and the size multiple is that of the last map."""
    info = backbone_info(f"timm:{name}", out_indices=[0, 1])
    network = small(name, out_indices=[0, 1]).train()
    assert info.size_multiple == {"convnext": 8}.get(name.removeprefix("test_"), 4)
    assert probe(network, 3).size_multiple == info.size_multiple
    image = torch.rand(2, 3, info.size_multiple * 3, info.size_multiple * 4)
    network(image).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_facts_and_a_start_without_a_correction(name: str) -> None:
    torch.manual_seed(0)
    network = create_backbone(f"timm:{name}", width=4).eval()
    image = torch.rand(1, 3, 32, 64)
    assert not bool(network(image).any())
    info = backbone_info(f"timm:{name}")
    traits = probe(small(name), 3)
    assert (traits.size_multiple, traits.global_skip) == (info.size_multiple, info.global_skip)
    assert traits.channels_last
    assert is_blind(network, 3, 32) is info.blind is False
    assert info.license == "Apache-2.0"


@pytest.mark.parametrize("name", NAMES)
def test_memory_layout_does_not_matter(name: str) -> None:
    network, image = small(name).eval(), torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        expected = network(image)
        network.to(memory_format=torch.channels_last)
        last = network(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_denoiser_trains_and_comes_back_by_name(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    denoiser = AsymmetricMaskDenoiser(
        f"timm:{name}", channels=1, backbone_args={"width": 4, "out_indices": (0, 1)}
    )
    before = {key: value.clone() for key, value in denoiser.backbone.state_dict().items()}
    images = torch.rand(2, 1, 64, 64)
    denoiser.fit(images, steps=2, crop=64, progress=False, validation=False, device="cpu")
    after = denoiser.backbone.state_dict()
    assert any(not torch.equal(before[key], after[key]) for key in after)
    if any(key.endswith("running_mean") for key in after):
        moved = [not torch.equal(before[k], after[k]) for k in after if k.endswith("running_mean")]
        assert all(moved)
    denoiser.save_pretrained(tmp_path)
    again = AsymmetricMaskDenoiser.from_pretrained(tmp_path)
    assert again.backbone_name == f"timm:{name}"
    assert again.traits.size_multiple == denoiser.traits.size_multiple
    picture = torch.rand(1, 41, 37)
    assert torch.equal(again.denoise(picture), denoiser.denoise(picture))


def test_pretrained_weights_are_asked_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of nobody before: the size multiple needs none. Images are shifted as timm's were."""
    asked, real = [], timm.create_model

    def make(name: str, *, pretrained: bool, **given: Any) -> Any:
        asked.append(pretrained)
        model = real(name, pretrained=False, **given)
        model.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.8)}
        return model

    monkeypatch.setattr(timm, "create_model", make)
    timm_unet.pyramid.cache_clear()
    name = f"timm:{NAMES[1]}"
    assert backbone_info(name, pretrained=True).size_multiple == 32
    assert asked == [False]
    network = create_backbone(name, width=2, pretrained=True)
    assert asked == [False, True]
    assert network.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    grey = create_backbone(name, channels=1, width=2)
    assert asked[-1] is False
    assert grey.mean.flatten().tolist() == pytest.approx([0.2])
    assert grey.std.flatten().tolist() == pytest.approx([0.6])
    assert not {"mean", "std"} & set(network.state_dict())
    nn.init.normal_(network.head.weight)
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = network.eval()(image)
        network.mean += 0.5
        assert not torch.allclose(network(image), before)


def test_making_one_draws_nothing_beside_its_weights() -> None:
    """Asking for facts moves no random state; the same seed gives the same network."""
    state = torch.get_rng_state()
    timm_unet.pyramid.cache_clear()
    backbone_info(f"timm:{NAMES[0]}")
    assert torch.equal(torch.get_rng_state(), state)
    first, second = small(NAMES[0]).state_dict(), small(NAMES[0]).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", "it divides the sides by 16, 16, 16"),
        ("swin_tiny_patch4_window7_224", "match model|were expected"),
        ("mixer_b16_224", "cannot be the encoder"),
    ],
)
def test_models_without_a_pyramid_are_refused(name: str, reason: str) -> None:
    for ask in (create_backbone, backbone_info):
        with pytest.raises(SettingError, match=f"'timm:{name}' cannot be the encoder") as caught:
            ask(f"timm:{name}")
        assert "Choose a convolutional one, for example" in str(caught.value)
        with pytest.raises(SettingError, match=reason):
            ask(f"timm:{name}")


@pytest.mark.parametrize("name", ["resnett18", "hf-hub:timm/resnet18", "", "/etc/passwd", "resnet"])
def test_unknown_names_suggest_timms_own(name: str) -> None:
    for ask in (create_backbone, backbone_info):
        with pytest.raises(UnknownNameError, match="unknown timm encoder") as caught:
            ask(f"timm:{name}")
    if name == "resnett18":
        assert "did you mean 'resnet18'" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": 2.5}, "width is 2.5"),
        ({"out_indices": []}, "out_indices is"),
        ({"out_indices": [9]}, "cannot be the encoder"),
        ({"out_indices": [2, 1]}, "cannot be the encoder"),
        ({"checkpoint_path": "x.pth"}, "unexpected keyword argument.*it takes.*width=32"),
        ({"encoder": "resnet50"}, "unexpected keyword argument 'encoder'"),
    ],
)
def test_unusable_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        create_backbone(f"timm:{NAMES[0]}", **arguments)


def test_a_name_of_timm_cannot_be_registered() -> None:
    from masked_denoise import register_backbone

    with pytest.raises(SettingError, match="taken by timm"):
        register_backbone("timm:mine")(lambda channels=3: nn.Identity())


def test_timm_is_loaded_for_its_own_encoders_only() -> None:
    code = (
        "import sys, masked_denoise as m; m.list_backbones(); m.create_backbone('fast-unet'); "
        "assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
