"""What every registered backbone promises, checked for each name.

A plug-in is checked the same way: register it, then run this file.
"""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from masked_denoise import AsymmetricMaskDenoiser, create_backbone, list_backbones
from masked_denoise.backbones import backbone_info
from masked_denoise.probe import probe

SMALL: dict[str, dict[str, Any]] = {
    "restormer": {"dim": 8, "blocks": (1, 2, 1, 1), "refinement_blocks": 1},
    "nafnet": {
        "width": 8, "encoder_blocks": (1, 1, 1, 2), "middle_blocks": 1,
        "decoder_blocks": (1, 1, 1, 1),
    },
    "unet": {"width": 8},
    "fast-student": {"widths": (8, 12), "blocks": (1, 1)},
    "deamnet": {"width": 8},
    "dncnn": {"width": 8, "depth": 5},
    "dbsn": {"width": 8, "blocks": 2},
}  # fmt: skip
NAMES = [name for name in list_backbones() if not name.endswith("-example")]


def small(name: str, channels: int = 3, seed: int = 0) -> nn.Module:
    """Return a small network of that name, no part of which is without effect."""
    torch.manual_seed(seed)
    network = create_backbone(name, channels=channels, **SMALL.get(name, {}))
    for parameter in network.parameters():
        if bool((parameter == 0).all()):
            nn.init.normal_(parameter, std=0.1)
    return network


def multiple_of(name: str) -> int:
    """Return what is registered, or what a trial finds where nothing is."""
    return backbone_info(name).size_multiple or probe(small(name), 3).size_multiple


def side(name: str) -> int:
    """Return a side that the network takes, two of its multiples and at least 16 pixels."""
    multiple = multiple_of(name)
    return max(2 * multiple, -(-16 // multiple) * multiple)


def image_for(name: str, channels: int = 3, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    height = side(name)
    width = height + multiple_of(name)
    return torch.rand(batch, channels, height, width, generator=generator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_keeps_the_shape_with_any_number_of_channels(name: str, channels: int) -> None:
    image = image_for(name, channels)
    output = small(name, channels)(image)
    assert output.shape == image.shape
    assert bool(output.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(17, 23), (1, 40), (50, 33)])
def test_takes_any_size_inside_the_denoiser(name: str, size: tuple[int, int]) -> None:
    denoiser = AsymmetricMaskDenoiser(small(name, 1), channels=1, passes=1, stride=1)
    image = torch.rand(1, *size)
    assert denoiser.denoise(image).shape == image.shape


@pytest.mark.parametrize("name", NAMES)
def test_size_multiple_is_right(name: str) -> None:
    """What is registered works, and is not larger than what a trial finds."""
    found, multiple = probe(small(name), 3).size_multiple, multiple_of(name)
    assert found <= multiple
    assert multiple % found == 0


@pytest.mark.parametrize("name", NAMES)
def test_global_skip_is_right(name: str) -> None:
    """With the other layers silenced, a network with a global skip returns its input."""
    network = small(name).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    image = image_for(name)
    skip = backbone_info(name).global_skip
    skip = probe(small(name), 3).global_skip if skip is None else skip
    assert torch.equal(network(image), image) == skip


@pytest.mark.parametrize("name", NAMES)
def test_blind_is_right(name: str) -> None:
    """The gradient of an output pixel at its own input pixel is zero for blind networks only."""
    network = small(name).double().eval()
    image = image_for(name, batch=1).double().requires_grad_()
    row, col = image.shape[2] // 2, image.shape[3] // 2
    network(image)[0, :, row, col].sum().backward()
    assert image.grad is not None
    assert bool((image.grad[0, :, row, col] == 0).all()) == backbone_info(name).blind


def test_an_undilated_dbsn_is_not_blind() -> None:
    network = create_backbone("dbsn", width=8, blocks=2, dilated=False).double()
    image = torch.rand(1, 3, 20, 20, dtype=torch.float64, requires_grad=True)
    network(image)[0, :, 10, 10].sum().backward()
    assert image.grad is not None
    assert float(image.grad[0, :, 10, 10].abs().max()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_trained(name: str) -> None:
    network = small(name).train()
    image = image_for(name)
    (network(image) - torch.rand_like(image)).square().mean().backward()
    idle = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    before_norm = {key for key in idle if name == "dncnn" and key.endswith("bias")}
    assert not set(idle) - before_norm
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", NAMES)
def test_constant_images_give_finite_gradients(name: str) -> None:
    """A norm of a constant, and a length of zero, are where gradients become NaN."""
    for value in (0.0, 1.0):
        network = small(name).train()
        image = torch.full_like(image_for(name), value).requires_grad_()
        network(image).square().mean().backward()
        assert image.grad is not None
        assert bool(image.grad.isfinite().all())
        assert all(
            bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None
        )


@pytest.mark.parametrize("name", NAMES)
def test_memory_layout_does_not_matter(name: str) -> None:
    network = small(name).eval()
    image = image_for(name)
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = network(image)
        for form in (network, other):
            output = form(image.contiguous(memory_format=torch.channels_last))
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


class LayoutCopies(TorchDispatchMode):
    """Counts the feature maps that are copied from one layout into the other."""

    def __init__(self, smallest: int) -> None:
        super().__init__()
        self.smallest, self.count = smallest, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket._qualified_op_name in ("aten::clone", "aten::copy_"):
            source = args[0] if func.overloadpacket._qualified_op_name == "aten::clone" else args[1]
            moved = result.stride() != source.stride() and result.shape == source.shape
            self.count += moved and source.numel() >= self.smallest
        return result


@pytest.mark.parametrize("name", NAMES)
def test_no_feature_map_changes_its_layout(name: str) -> None:
    """Shuffles move pixels, once each; nothing else copies a map that is channels last already.

    But for the gates of Restormer's ten blocks here: half of a map, for which GELU is then faster.
    """
    network = small(name).eval().to(memory_format=torch.channels_last)
    image = torch.rand(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    smallest = 2 * image[0, 0].numel() + 1  # all feature maps have more; matrices have not
    with torch.no_grad(), LayoutCopies(smallest) as copies:
        output = network(image)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert copies.count <= {"restormer": 6 + 10, "nafnet": 4, "fast-student": 2}.get(name, 0)


@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_a_graph_break(name: str) -> None:
    network = small(name).eval()
    image = image_for(name)
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_trains_under_bf16_autocast(name: str) -> None:
    network = small(name).train()
    image = image_for(name)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(image)
    output.float().square().mean().backward()
    assert bool(output.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)
    exact = copy.deepcopy(network).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = exact(image).float()
    with torch.no_grad():
        error = (rough - exact(image)).abs().mean() / exact(image).abs().mean()
    assert float(error) < 0.05


@pytest.mark.parametrize("side", [32, 64, 96])
@pytest.mark.parametrize("name", [n for n in NAMES if backbone_info(n).trains_in_bf16])
def test_gradients_in_bf16_are_those_in_float32(name: str, side: int) -> None:
    network = small(name).to(memory_format=torch.channels_last).train()
    with torch.no_grad():
        for weight in network.parameters():
            if not weight.any():  # layers that start at zero
                weight.normal_(0, 0.05)
    image = torch.rand(8, 3, side, side).to(memory_format=torch.channels_last)
    gradients = []
    for rough in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            output = network(image)
        (output.float() - 0.3).square().mean().backward()
        given = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
        gradients.append(torch.cat(given))
    assert float(torch.cosine_similarity(*gradients, dim=0)) > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_weights_and_a_round_trip(name: str) -> None:
    first, second = small(name, seed=3), small(name, seed=3)
    buffer = io.BytesIO()
    torch.save(first.state_dict(), buffer)
    buffer.seek(0)
    other = small(name, seed=4)
    other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    image = image_for(name)
    for network in (second, other, copy.deepcopy(first)):
        with torch.no_grad():
            assert torch.equal(network.eval()(image), first.eval()(image))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_known_of_it_is_told(name: str) -> None:
    info = backbone_info(name)
    assert info.license not in ("", "unknown")
    assert info.source
    assert info.note
    assert type(create_backbone(name, **SMALL.get(name, {}))).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_denoiser_learns_with_it(name: str) -> None:
    """Some steps on one flat noisy picture bring the loss under fixed masks down."""
    torch.manual_seed(0)
    network = create_backbone(name, **SMALL.get(name, {}))
    denoiser = AsymmetricMaskDenoiser(network).train()
    multiple = 2 * multiple_of(name)
    crop = -(-48 // multiple) * multiple
    image = (0.5 + 0.1 * torch.randn(1, 3, crop, crop)).clamp(0, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def judged() -> float:
        with torch.no_grad():
            return sum(float(denoiser(image, step=step, purpose=99)) for step in range(4))

    before = judged()
    for step in range(30):
        optimizer.zero_grad()
        denoiser(image, step=step).backward()
        optimizer.step()
    assert judged() < before
