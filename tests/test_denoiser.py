"""The denoiser: what comes back, what must not come through, and what training sees."""

from __future__ import annotations

import copy
import math
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masked_denoise import (
    AsymmetricMaskDenoiser,
    Checkerboard,
    Lattice,
    MaskScheme,
    Noise2Void,
    NothingHidden,
    PixelDownsample,
    RandomPartition,
    Refinement,
    create_backbone,
    mask_loss,
    smoothness_loss,
)
from masked_denoise.backbones import registry
from masked_denoise.calls import predict, turned
from masked_denoise.errors import (
    BackboneError,
    PixelError,
    SettingError,
    SizeError,
    UnknownNameError,
)
from masked_denoise.hashing import Key, Purpose
from masked_denoise.inference import TURNS, denoise_batch
from masked_denoise.ops import MaskedImage, fill_hidden
from masked_denoise.ops.reference import replacement
from masked_denoise.pixels import Grid
from masked_denoise.values import CountRange


class Mixer(nn.Module):
    """A random network that mixes pixels and channels over 5 x 5, in sides of any `multiple`."""

    def __init__(self, channels: int = 3, *, multiple: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.multiple = multiple
        self.first = nn.Conv2d(channels, 6, 3, padding=1)
        self.last = nn.Conv2d(6, channels, 3, padding=1)
        self.output: Tensor | None = None

    def forward(self, image: Tensor) -> Tensor:
        x = torch.tanh(self.first(image))
        if self.multiple > 1:
            pooled = F.avg_pool2d(x, self.multiple)
            x = x + F.interpolate(pooled, scale_factor=self.multiple)
        self.output = self.last(x)
        return self.output


class Stripes(MaskScheme):
    """A user's scheme: three groups of columns, moved on with every draw."""

    branches = 3

    def label(self, grid: Grid, key: Key) -> Tensor:
        return ((grid.sub_col + grid.sub_row * 0 + key.draw) % 3).to(torch.uint8).expand(grid.shape)


def make(backbone: nn.Module | str | None = None, **settings: Any) -> AsymmetricMaskDenoiser:
    """Return a denoiser without the parts that mix pixels after the branches, unless asked for."""
    channels = settings.get("channels", 3)
    if "preset" not in settings:
        settings = {"chroma_radius": 0, "dct_threshold": 0.0, **settings}
    return AsymmetricMaskDenoiser(backbone or Mixer(channels), **settings)


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# -- what comes back --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(13, 18, 3), (13, 18)])
def test_array_in_array_out(dtype: str, shape: tuple[int, ...]) -> None:
    denoiser = make(channels=3 if len(shape) == 3 else 1, stride=2)
    values = picture(*shape).numpy()
    top = 1.0 if dtype.startswith("float") else float(np.iinfo(dtype).max)
    image = (values * top).astype(dtype)
    kept = image.copy()
    result = denoiser.denoise(image)
    assert isinstance(result, np.ndarray)
    assert (result.shape, result.dtype) == (image.shape, image.dtype)
    assert np.array_equal(image, kept)
    reference = denoiser.denoise((image / top).astype(np.float64))
    if top > 1:
        reference = reference.clip(np.iinfo(dtype).min / top, 1)
    atol = 1e-3 if dtype == "float16" else 0.51 / top + 1e-6 if top > 1 else 1e-5
    np.testing.assert_allclose(result.astype(np.float64) / top, reference, atol=atol)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(3, 13, 18), (2, 3, 13, 18), (1, 3, 2, 2)])
def test_tensor_in_tensor_out(dtype: str, shape: tuple[int, ...]) -> None:
    kind: torch.dtype = getattr(torch, dtype)
    top = 1 if kind.is_floating_point else torch.iinfo(kind).max
    image = (picture(*shape).double() * top).to(kind)
    kept = image.clone()
    result = make(stride=2).denoise(image)
    assert isinstance(result, Tensor)
    assert (result.shape, result.dtype, result.device) == (image.shape, image.dtype, image.device)
    assert torch.equal(image, kept)
    assert result.is_contiguous()


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels(channels: int) -> None:
    image = picture(channels, 11, 14)
    assert make(channels=channels).denoise(image).shape == image.shape
    array = image.permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(
        make(channels=channels).denoise(array),
        make(channels=channels).denoise(image).permute(1, 2, 0),
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("multiple", [1, 4])
def test_any_size_from_the_stride_on(stride: int, multiple: int) -> None:
    denoiser = make(Mixer(multiple=multiple), stride=stride, passes=1)
    assert denoiser.traits.size_multiple == multiple
    for size in ((stride, stride), (stride, stride + 1), (stride + 1, 17), (23, 8)):
        result = denoiser.denoise(picture(3, *size))
        assert result.shape == (3, *size)
        assert bool(result.isfinite().all())


def test_value_range_of_floats() -> None:
    image = picture(3, 12, 12)
    plain, ranged = make(), make(value_range=(-50.0, 150.0))
    expected = plain.denoise(image) * 200 - 50
    torch.testing.assert_close(ranged.denoise(image * 200 - 50), expected, atol=1e-3, rtol=1e-5)
    assert torch.equal(ranged.denoise((image * 255).byte()), plain.denoise((image * 255).byte()))


def test_floats_are_not_clipped() -> None:
    result = make(observation=0.5).denoise(picture(3, 12, 12) * 10 - 5)
    assert float(result.min()) < 0
    assert float(result.max()) > 1


def test_result_can_be_used_in_training() -> None:
    """What comes back is an ordinary tensor, not one that autograd refuses."""
    for denoiser in (make(), make().eval()):
        clean = denoiser.denoise(picture(1, 3, 8, 8))
        network = Mixer()
        (network(clean) * clean).sum().backward()
        clean += 1
    output = make().eval()(picture(1, 3, 8, 8))
    (Mixer()(output) * output).sum().backward()


# -- what decides the result ------------------------------------------------------------------


@pytest.mark.parametrize("refined", [False, True])
def test_same_seed_same_picture(refined: bool) -> None:
    image, denoiser = picture(3, 20, 20), make(refine=refined, stride=2)
    first = denoiser.denoise(image, seed=5)
    assert torch.equal(first, denoiser.denoise(image, seed=5))
    assert not torch.equal(first, denoiser.denoise(image, seed=6))
    assert torch.equal(first, copy.deepcopy(denoiser).denoise(image, seed=5))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "passes": 2},
        {"refine": True},
        {"scheme": RandomPartition(3), "refine": Refinement(2, 0.4)},
        {"scheme": Checkerboard()},
        {"scheme": Noise2Void()},
        {"refine": Refinement(2, masked=False)},
        {"chroma_radius": 3, "observation": 0.3},
    ],
    ids=str,
)
def test_a_batch_gives_what_each_image_gives_alone(settings: dict[str, Any]) -> None:
    images, denoiser = picture(3, 3, 15, 18), make(**settings)
    together = denoiser.denoise(images)
    for image, result in zip(images, together, strict=True):
        torch.testing.assert_close(denoiser.denoise(image), result, atol=1e-6, rtol=1e-5)


def one_pass(denoiser: AsymmetricMaskDenoiser, image: Tensor, key: Key, draw: int) -> Tensor:
    """Return all branches of one draw, merged, written out."""
    scheme = denoiser.scheme.inference or denoiser.scheme
    pixels, size = PixelDownsample(denoiser.stride), (image.shape[2], image.shape[3])
    grid = pixels.grid(len(image), size, sample=torch.zeros(len(image), dtype=torch.int64))
    label, merged = scheme.label_of_pass(grid, key), torch.zeros(())
    padded = (grid.row >= size[0]) | (grid.col >= size[1])
    for branch in range(scheme.branches):
        hidden = scheme.hidden(label, branch) | padded
        filled = fill_hidden(pixels.down(image), hidden, scheme.fill)
        output = predict(denoiser, [(filled, TURNS[draw])], denoiser.backbone)[0]
        merged = torch.where(scheme.scored(label, branch), output, merged)
    return pixels.up(merged, size=size)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "scheme", [RandomPartition(2), RandomPartition(3, fill="zero"), Checkerboard(), Stripes()],
    ids=repr,
)  # fmt: skip
@torch.no_grad()
def test_denoise_is_its_definition_bit_for_bit(scheme: MaskScheme, stride: int) -> None:
    """All passes, branches and turns, then R3, on a batch of two."""
    image = picture(2, 3, 15, 18)
    settings = Refinement(2, 0.3, balanced=stride == 2)
    denoiser = make(
        Mixer(multiple=4), scheme=scheme, stride=stride, refine=settings, observation=0.0
    ).eval()
    first = torch.zeros_like(image)
    for draw in range(3):
        first += one_pass(denoiser, image, Key(7, Purpose.INFER, draw), draw)
    first /= 3
    denoiser.stride, result = 1, torch.zeros_like(image)
    for draw in range(2):
        key = Key(7, Purpose.REFINE, draw)
        back = replacement((15, 18), 1, 0.3, key=key, draws=2 if settings.balanced else 0)
        replaced = torch.where(back, image, first)
        result += one_pass(denoiser, replaced, key, draw + 1)
    denoiser.stride = stride
    assert torch.equal(denoiser.denoise(image, passes=3, seed=7), result / 2)


@pytest.mark.parametrize("smoothness", [None, 0.1])
@pytest.mark.parametrize("size", [(12, 16), (13, 18)])
def test_a_training_step_is_its_definition_bit_for_bit(
    size: tuple[int, int], smoothness: float | None
) -> None:
    image, scheme = picture(2, 3, *size), RandomPartition(2)
    denoiser = make(Mixer(multiple=4), scheme=scheme, train_stride=2).train()
    loss = denoiser(image, step=5, seed=1, sample=3, smoothness=smoothness)
    (ours,) = torch.autograd.grad(loss, denoiser.backbone.first.weight)
    key, pixels = Key(1, Purpose.TRAIN, 5), PixelDownsample(2)
    grid, sub_images = pixels.grid(2, size, sample=3), pixels.down(image)
    label = scheme.label(grid, key)
    padded = (grid.row >= size[0]) | (grid.col >= size[1])
    outputs, losses = [], []
    for branch in range(2):
        filled = fill_hidden(sub_images, (label == branch) | padded, "mean")
        outputs.append(denoiser.predict(filled))
        losses.append(mask_loss(outputs[-1], sub_images, (label == branch) & ~padded))
    expected = losses[scheme.branch_of_step(key)]
    if smoothness is not None:
        merged = pixels.up(torch.where(label == 1, outputs[1], outputs[0]), size=size)
        expected = sum(losses) + smoothness * smoothness_loss(merged)
    assert torch.equal(loss, expected)
    (gradient,) = torch.autograd.grad(expected, denoiser.backbone.first.weight)
    torch.testing.assert_close(ours, gradient)


def test_passes_are_draws_that_are_averaged_each_turned_another_way() -> None:
    image, denoiser = picture(3, 16, 16), make(observation=0.0).eval()
    with torch.no_grad():
        draws = [one_pass(denoiser, image[None], Key(9, Purpose.INFER, d), d) for d in range(3)]
    assert not torch.allclose(draws[0], draws[1])
    mean = torch.stack(draws).mean(0)[0]
    torch.testing.assert_close(denoiser.denoise(image, passes=3, seed=9), mean)
    torch.testing.assert_close(denoiser.denoise(image, passes=1, seed=9), draws[0][0])
    assert torch.equal(denoiser.denoise(image, passes=4), denoiser.denoise(image))


def test_a_turned_network_sees_the_turned_image() -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[..., :1, :1] * torch.ones_like(x)  # tells which corner came first

    denoiser, image = make(First(), residual=False), picture(1, 3, 6, 10)
    corners = {
        turn: (predict(denoiser, [(image, turn)], denoiser.backbone)[0][0, 0] == image[0, 0])
        .nonzero()[0]
        .tolist()
        for turn in range(8)
    }
    assert corners == {
        0: [0, 0], 1: [0, 9], 2: [5, 9], 3: [5, 0], 4: [0, 9], 5: [5, 9], 6: [5, 0], 7: [0, 0],
    }  # fmt: skip


def test_all_eight_turns_differ_and_turn_back() -> None:
    image = picture(1, 3, 6, 10)
    seen = [turned(image, turn) for turn in range(8)]
    for turn, view in enumerate(seen):
        assert torch.equal(turned(view, turn, back=True), image)
        for other in seen[:turn]:
            assert view.shape != other.shape or not torch.equal(view, other)


def test_strength_and_observation_mix_the_noisy_image_in() -> None:
    image = picture(4, 16, 16)
    clean = make(channels=4, observation=0.0).denoise(image)
    assert torch.equal(make(channels=4).denoise(image, strength=0), image)
    half = make(channels=4, observation=0.0).denoise(image, strength=0.5)
    torch.testing.assert_close(half, (clean + image) / 2)
    own = make(channels=4, observation=0.25)
    torch.testing.assert_close(own.denoise(image), 0.75 * clean + 0.25 * image)
    mixed = own.denoise(image, strength=0.5)
    torch.testing.assert_close(mixed, 0.375 * clean + 0.625 * image)


def test_of_a_colour_image_only_the_luma_of_the_observation_comes_back() -> None:
    image = picture(3, 16, 16)
    clean = make(observation=0.0).denoise(image)
    expected = clean + 0.25 * (image - clean).mean(0)
    torch.testing.assert_close(make(observation=0.25).denoise(image), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32"])
def test_no_strength_gives_the_picture_back(dtype: str) -> None:
    image = (picture(9, 7, 3).numpy() * (1 if "float" in dtype else 32767)).astype(dtype)
    assert np.array_equal(make().denoise(image, strength=0), image)


def test_images_of_a_training_batch_get_masks_of_their_own() -> None:
    denoiser = make(Mixer()).train()
    image = picture(1, 3, 16, 16)
    one, other = (denoiser(image, step=3, sample=sample) for sample in (0, 1))
    both = denoiser(image.repeat(2, 1, 1, 1), step=3, sample=torch.tensor([1, 0]))
    assert not torch.equal(one, other)
    torch.testing.assert_close(both, (one + other) / 2, atol=0.05, rtol=0)


@pytest.mark.parametrize("scheme", [RandomPartition(2), Checkerboard(), Noise2Void()], ids=repr)
def test_global_random_states_are_left_alone(scheme: MaskScheme) -> None:
    denoiser, image = make(scheme=scheme, refine=True), picture(1, 3, 12, 12)
    before = (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002
    denoiser.denoise(image)
    denoiser.train()(image).backward()
    after = (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1][1], after[1][1])
    assert before[1][2] == after[1][2]
    assert before[2] == after[2]


# -- what must not come through ---------------------------------------------------------------

BLIND_BY_MASK = [
    RandomPartition(2),
    RandomPartition(2, fill="zero"),
    RandomPartition(2, fill=0.5),
    RandomPartition(1),
    RandomPartition(3),
    RandomPartition(4, hide="others"),
    Checkerboard(),
    Checkerboard(fill="zero"),
    Lattice(2),
    Lattice(3, radius=1),
    Stripes(),
]


def outputs_with_each_pixel_changed(
    denoiser: AsymmetricMaskDenoiser, size: tuple[int, int], change: float
) -> tuple[Tensor, Tensor]:
    """Return the result of an image, and results (P, H, W) with pixel p changed in the p-th."""
    height, width = size
    image = picture(3, height, width)
    images = image.repeat(height * width + 1, 1, 1, 1)
    for p in range(height * width):
        images[p, :, p // width, p % width] += change
    results = denoise_batch(denoiser, images, passes=2, seed=1)
    return results[-1], results[:-1]


@pytest.mark.parametrize("scheme", BLIND_BY_MASK, ids=repr)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 8), (9, 5)])
def test_no_pixel_reaches_its_own_output(
    scheme: MaskScheme, stride: int, size: tuple[int, int]
) -> None:
    """Not over a mask, not over a fill, not over padding to the stride or to the network's size."""
    denoiser = make(Mixer(multiple=4), scheme=scheme, stride=stride, observation=0.0).eval()
    base, results = outputs_with_each_pixel_changed(denoiser, size, 10.0)
    own = torch.stack([results[p, :, p // size[1], p % size[1]] for p in range(len(results))])
    torch.testing.assert_close(own.T.reshape(base.shape), base, atol=1e-6, rtol=0)
    if scheme.branches > 1:
        assert not torch.allclose(results, base.expand_as(results), atol=1e-3)


def test_a_leak_would_be_seen() -> None:
    """The check above fails where a scheme hides nothing."""
    denoiser = make(scheme=NothingHidden(), observation=0.0).eval()
    base, results = outputs_with_each_pixel_changed(denoiser, (5, 5), 10.0)
    own = torch.stack([results[p, :, p // 5, p % 5] for p in range(25)]).T.reshape(base.shape)
    assert (own - base).abs().min() > 1e-3


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("refinement", [False, Refinement(2), Refinement(2, masked=False)])
def test_nan_is_predicted_from_the_others(stride: int, refinement: Refinement | bool) -> None:
    denoiser = make(stride=stride, refine=refinement)
    image = picture(3, 13, 12)
    image[0, 4, 5] = math.nan
    image[:, 12, 11] = math.inf
    image[1, 0, 0:3] = -math.inf
    bad = ~image.isfinite().all(0)
    result = denoiser.denoise(image, nan="mask")
    assert bool(result.isfinite().all())
    for value in (0.0, 7.0):
        other = torch.where(bad, value, image)
        other[0, bad] = math.nan
        assert torch.equal(denoiser.denoise(other, nan="mask"), result)
    kept = denoiser.denoise(image, nan="mask", strength=0)
    assert torch.equal(kept[:, ~bad], image[:, ~bad])
    assert bool(kept.isfinite().all())


@pytest.mark.parametrize("scheme", [Noise2Void(), NothingHidden(), RandomPartition(1)], ids=repr)
def test_nan_is_predicted_under_every_scheme(scheme: MaskScheme) -> None:
    image = picture(3, 12, 12)
    image[:, 3, 3] = math.nan
    assert bool(make(scheme=scheme).denoise(image, nan="mask").isfinite().all())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("refinement", [Refinement(2, 0.9), Refinement(2, 0.9, masked=False)])
def test_nothing_of_a_pixel_without_a_value_is_mixed_in(
    channels: int, strength: float, refinement: Refinement
) -> None:
    """In a flat picture, with a network that corrects nothing, every prediction is that grey."""
    denoiser = make(
        create_backbone("fast-unet", channels=channels),
        channels=channels, observation=0.4, chroma_radius=2, refine=refinement,
    )  # fmt: skip
    image = torch.full((channels, 12, 13), 0.75)
    image[0, 3, 4] = image[0, 11, 12] = math.nan
    result = denoiser.denoise(image, nan="mask", strength=strength)
    torch.testing.assert_close(result, torch.full_like(result, 0.75))


def test_clean_images_are_the_same_with_nan_masked() -> None:
    image = picture(3, 13, 12)
    assert torch.equal(make().denoise(image, nan="mask"), make().denoise(image))


def test_an_image_of_nan_only_gives_numbers() -> None:
    assert bool(make().denoise(torch.full((3, 8, 8), math.nan), nan="mask").isfinite().all())


def test_nan_is_an_error_that_names_the_place() -> None:
    image = picture(9, 8, 3).numpy()
    image[6, 2, 1] = math.nan
    with pytest.raises(PixelError, match="channel 1, row 6, column 2"):
        make().denoise(image)


# -- refinement -------------------------------------------------------------------------------


class Spy(RandomPartition):
    """Records the masks it draws."""

    drawn: list[tuple[Key, int, Tensor]]

    def label_of_pass(self, grid: Grid, key: Key) -> Tensor:
        drawn = super().label_of_pass(grid, key)
        self.drawn.append((key, grid.stride, drawn))
        return drawn


@pytest.mark.parametrize("branches", [2, 3])
def test_refinement_draws_masks_that_do_not_know_the_replaced_pixels(branches: int) -> None:
    denoiser = make(scheme=Spy(branches), refine=Refinement(3, 0.16), passes=1, stride=2)
    scheme = denoiser.scheme
    assert isinstance(scheme, Spy)
    scheme.drawn = []
    denoiser.denoise(torch.zeros(3, 300, 300))
    first, *others = scheme.drawn
    assert first[1] == 2
    assert [stride for _, stride, _ in others] == [1, 1, 1]
    assert len({key for key, _, _ in scheme.drawn}) == 4
    for draw, (_, _, label) in enumerate(others):
        replace = replacement((300, 300), 1, 0.16, key=Key(0, Purpose.REPLACE, draw))
        for branch in range(branches):
            pair = torch.stack([replace.flatten().double(), (label == branch).flatten().double()])
            assert abs(float(torch.corrcoef(pair)[0, 1])) < 4 / 300


def test_masked_and_plain_refinement_run_the_network_as_often_as_they_say() -> None:
    calls = []
    for refinement in (False, Refinement(5), Refinement(5, masked=False)):
        denoiser = make(refine=refinement, passes=2)
        hook = denoiser.backbone.register_forward_hook(lambda *_: calls.append(1))
        denoiser.denoise(picture(3, 12, 12))
        hook.remove()
        calls.append(0)
    counts = [len(part) for part in "".join(map(str, calls)).split("0")]
    assert counts[:3] == [4, 4 + 10, 4 + 5]


@pytest.mark.parametrize("turns", [True, False])
def test_plain_refinement_is_the_mean_over_replaced_images(turns: bool) -> None:
    image = picture(1, 3, 12, 12)
    settings = {"observation": 0.0, "residual": False, "turns": turns}
    plain = make(refine=False, **settings)
    refined = make(refine=Refinement(4, 0.3, masked=False), **settings)
    first, expected = plain.denoise(image), torch.zeros_like(image)
    for draw in range(4):
        mask = replacement((12, 12), 1, 0.3, key=Key(0, Purpose.REPLACE, draw))
        with torch.no_grad():
            turn = TURNS[draw + 1] if turns else 0
            expected += (
                predict(plain, [(torch.where(mask, image, first), turn)], plain.backbone)[0] / 4
            )
    torch.testing.assert_close(refined.denoise(image), expected)


# -- large images -----------------------------------------------------------------------------


def fast_unet(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    network = create_backbone("fast-unet", channels=channels)
    for parameter in network.parameters():
        if not bool(parameter.any()):
            nn.init.normal_(parameter, 0, 0.05)
    return network


def test_tiled_equals_whole() -> None:
    denoiser, image = make(fast_unet(), passes=2, chroma_radius=8), picture(3, 700, 300)
    assert denoiser.traits.size_multiple == 8
    whole = denoiser.denoise(image, tile=10**6)
    torch.testing.assert_close(denoiser.denoise(image, tile=256), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2, "scheme": RandomPartition(3)},
        {"stride": 3, "scheme": Checkerboard()},
        {"stride": 2, "scheme": Lattice(3, radius=1)},
        {"stride": 2, "refine": Refinement(2)},
    ],
    ids=str,
)
def test_tiled_equals_whole_at_any_stride(settings: dict[str, Any]) -> None:
    denoiser = make(Mixer(1, multiple=4), channels=1, passes=1, **settings)
    image = picture(1, 470, 203)
    image[:, 250:253, 30:33] = math.nan
    whole = denoiser.denoise(image, tile=10**6, nan="mask")
    tiled = denoiser.denoise(image, tile=100, nan="mask")
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


# -- the network ------------------------------------------------------------------------------


def test_network_is_told_what_to_predict() -> None:
    image = picture(3, 12, 12)
    corrected, direct = make(residual=True, observation=0), make(residual=False, observation=0)
    assert make().residual
    with torch.no_grad():
        for denoiser in (corrected, direct):
            denoiser.backbone.last.weight.zero_()
            denoiser.backbone.last.bias.fill_(0.25)
    assert bool((direct.denoise(image) == 0.25).all())
    scheme, grid = RandomPartition(2), PixelDownsample(1).grid(1, (12, 12))
    expected = torch.zeros(1, 3, 12, 12)
    for draw in range(4):
        label = scheme.label_of_pass(grid, Key(0, Purpose.INFER, draw))
        for branch in range(2):
            filled = fill_hidden(image[None], label == branch, "mean")
            expected += torch.where(label == branch, filled + 0.25, 0) / 4
    torch.testing.assert_close(corrected.denoise(image), expected[0])


@pytest.mark.parametrize(
    ("settings", "residual"),
    [
        ({}, True),
        ({"scheme": RandomPartition(2, fill="zero")}, False),
        ({"scheme": NothingHidden()}, False),
        ({"backbone": nn.Identity()}, False),
        ({"residual": False}, False),
        ({"scheme": RandomPartition(2, fill="zero"), "residual": True}, True),
        ({"preset": "amsnet"}, False),
    ],
    ids=str,
)
def test_residual_is_chosen(settings: dict[str, Any], residual: bool) -> None:
    assert make(**settings).residual is residual


def test_mode_of_every_module_stays() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
    denoiser = make(network).train()
    denoiser.backbone[1].eval()  # type: ignore[index]
    statistics = copy.deepcopy(network.state_dict())
    modes = [module.training for module in denoiser.modules()]
    denoiser.denoise(picture(3, 8, 8))
    assert [module.training for module in denoiser.modules()] == modes == [True, True, True, False]
    assert all(torch.equal(v, statistics[k]) for k, v in network.state_dict().items())
    with pytest.raises(PixelError):
        denoiser.denoise(torch.full((3, 8, 8), math.nan))
    assert [module.training for module in denoiser.modules()] == modes
    denoiser.eval().denoise(picture(3, 8, 8))
    assert not any(module.training for module in denoiser.modules())


def test_it_is_an_ordinary_module() -> None:
    denoiser = make()
    assert all(name.startswith("backbone.") for name in denoiser.state_dict())
    assert len(list(denoiser.parameters())) == 4
    twin = copy.deepcopy(denoiser)
    twin.load_state_dict(denoiser.state_dict(), strict=True)
    image = picture(3, 8, 8)
    assert torch.equal(twin.denoise(image), denoiser.denoise(image))
    assert not denoiser.requires_grad_(False).training or denoiser.train(False)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_moves_to_another_dtype(dtype: torch.dtype) -> None:
    image = picture(3, 10, 10)
    expected = make().denoise(image)
    denoiser = make().to(dtype)
    assert denoiser.backbone.first.weight.dtype == dtype
    result = denoiser.denoise(image)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=0.02, rtol=0)
    assert denoiser.train()(image[None]).dtype == torch.float32


def test_it_moves_to_the_device_of_its_network() -> None:
    denoiser = make().to("cpu").to(memory_format=torch.channels_last)
    assert denoiser.denoise(picture(3, 8, 8)).device.type == "cpu"


@pytest.mark.parametrize("preset", ["amsnet", "amsnet-b", "amsnet-p", "amsnet-b-e", "amsnet-p-e"])
def test_presets_are_the_paper(preset: str) -> None:
    denoiser = make(preset=preset)
    assert repr(denoiser.scheme) == "RandomPartition(branches=2, hide='own', fill='zero')"
    assert denoiser.train_strides == (5,)
    assert (denoiser.stride, denoiser.passes, denoiser.observation) == (2, 1, 0.0)
    assert denoiser.residual is False
    refined = preset.endswith("-e") or preset == "amsnet"
    assert denoiser.refinement == (Refinement(8, 0.16, masked=True) if refined else None)


def test_explicit_arguments_beat_the_preset() -> None:
    denoiser = make(
        preset="amsnet", scheme=Checkerboard(), train_stride=[2, 3], stride=1, passes=3,
        refine=False, residual=True, observation=0.2,
    )  # fmt: skip
    assert isinstance(denoiser.scheme, Checkerboard)
    assert denoiser.train_strides == (2, 3)
    assert (denoiser.stride, denoiser.passes, denoiser.observation) == (1, 3, 0.2)
    assert denoiser.refinement is None
    assert denoiser.residual is True
    assert make(refine=True).refinement == Refinement()


def test_presets_are_not_shared_between_denoisers() -> None:
    first, second = make(preset="amsnet"), make(preset="amsnet")
    assert first.scheme is not second.scheme


# -- errors -----------------------------------------------------------------------------------


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BackboneError, match="keep the shape"):
        make(nn.Conv2d(3, 4, 3, padding=1))
    with pytest.raises(BackboneError, match="keep the shape"):
        make(nn.Conv2d(3, 3, 3))
    with pytest.raises(BackboneError, match="3 channels each"):
        make(nn.Conv2d(1, 1, 3, padding=1))
    denoiser = make()
    denoiser.backbone.last = nn.Conv2d(6, 3, 3)
    with pytest.raises(BackboneError, match="must stay"):
        denoiser.denoise(picture(3, 16, 16))
    with pytest.raises(UnknownNameError, match="did you mean 'unet'"):
        make("unett")


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 4), (3, 2)])
@pytest.mark.parametrize("value", [0.1, 0.5, 0.95])
def test_the_smallest_pictures_keep_their_brightness(size: tuple[int, int], value: float) -> None:
    """A branch of theirs may see no pixel at all."""
    denoiser = AsymmetricMaskDenoiser()
    flat = torch.full((3, *size), value)
    made = denoiser.denoise(flat, passes=8)
    assert made.shape == flat.shape
    torch.testing.assert_close(made, flat, atol=0.01, rtol=0)


def test_pictures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(SizeError, match=r"2 x 9.*stride, 3"):
        make(stride=3).denoise(picture(3, 2, 9))
    with pytest.raises(SizeError, match=r"1 channels.*channels=1"):
        make().denoise(np.zeros((8, 8), np.uint8))
    with pytest.raises(SizeError, match="4 channels"):
        make().denoise(np.zeros((8, 8, 4), np.uint8))
    with pytest.raises(SizeError, match=r"\(C, H, W\) or \(B, C, H, W\)"):
        make().denoise(picture(8, 8))
    with pytest.raises(PixelError, match="bool"):
        make().denoise(np.zeros((8, 8, 3), bool))
    with pytest.raises(SizeError, match="channels"):
        make().train()(picture(1, 1, 8, 8))


@pytest.mark.parametrize(
    "settings",
    [
        {"passes": 0}, {"passes": 1.5}, {"stride": 0}, {"stride": 1.5}, {"train_stride": []},
        {"train_stride": [2, 0]}, {"observation": 1.0}, {"observation": -0.1},
        {"residual": "yes"}, {"preset": "amsnett"}, {"scheme": "random"}, {"refine": 8},
        {"value_range": (1, 0)},
    ],
    ids=str,
)  # fmt: skip
def test_unusable_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises((SettingError, UnknownNameError)):
        make(**settings)


@pytest.mark.parametrize(
    "arguments", [{"passes": 0}, {"strength": 1.1}, {"strength": -1}, {"nan": "drop"}, {"tile": 0}]
)
def test_unusable_arguments_are_refused(arguments: dict[str, Any]) -> None:
    denoiser = make()
    with pytest.raises(SettingError, match=str(next(iter(arguments)))):
        denoiser.denoise(picture(3, 8, 8), **arguments)


# -- training ---------------------------------------------------------------------------------


def training_masks(
    denoiser: AsymmetricMaskDenoiser, size: tuple[int, int], key: Key, batch: int = 1
) -> tuple[PixelDownsample, Tensor]:
    pixels = PixelDownsample(denoiser.train_strides[0])
    grid = pixels.grid(batch, size)
    inside = (grid.row < size[0]) & (grid.col < size[1])
    return pixels, torch.where(inside, denoiser.scheme.label(grid, key), 255)


@pytest.mark.parametrize(
    "scheme",
    [RandomPartition(2), RandomPartition(4, hide="others"), Lattice(2), Noise2Void(0.2), Stripes()],
    ids=repr,
)
@pytest.mark.parametrize("size", [(12, 12), (13, 11)])
def test_a_step_trains_one_branch_at_its_scored_pixels(
    scheme: MaskScheme, size: tuple[int, int]
) -> None:
    denoiser = make(scheme=scheme, train_stride=2).train()
    image, key = picture(2, 3, *size), Key(4, Purpose.TRAIN, 7)
    outputs: list[Tensor] = []
    denoiser.backbone.register_forward_hook(lambda *parts: outputs.append(parts[2]))
    for parameter in denoiser.parameters():
        parameter.requires_grad_(True)
    kept: list[Tensor] = []
    denoiser.backbone.last.register_forward_hook(lambda *parts: kept.append(parts[2]))
    loss = denoiser(image, step=7, seed=4)
    assert len(outputs) == 1
    (gradient,) = torch.autograd.grad(loss, kept[0])
    _, label = training_masks(denoiser, size, key, batch=2)
    scored = label == denoiser.scheme.branch_of_step(key)
    assert bool(scored.any())
    assert torch.equal((gradient != 0).any(1, keepdim=True), scored)
    assert loss.shape == ()
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("scheme", BLIND_BY_MASK, ids=repr)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_no_target_reaches_its_own_prediction_in_training(scheme: MaskScheme, stride: int) -> None:
    """Scored pixels changed by any amount leave the network's input, so its output, as it was."""
    denoiser = make(scheme=scheme, train_stride=stride).train()
    size, key = (7, 8), Key(0, Purpose.TRAIN, 2)
    seen: list[Tensor] = []
    denoiser.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    pixels, label = training_masks(denoiser, size, key)
    scored = (label == denoiser.scheme.branch_of_step(key)).expand(-1, 3, -1, -1)
    image = picture(1, 3, *size)
    changed = torch.where(pixels.up(scored, size=size), math.nan, image)
    for one in (image, changed):
        denoiser(one, step=2)
    assert torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("stride", [2, 3])
def test_noise2void_never_shows_a_pixel_its_own_value(stride: int) -> None:
    """Neither directly nor over the copies that padding makes at the border."""
    denoiser = make(nn.Identity(), scheme=Noise2Void(0.5), train_stride=stride).train()
    seen: list[Tensor] = []
    denoiser.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    size = (7, 8)
    image = picture(1, 3, *size)
    for step in range(60):
        denoiser(image, step=step)
        pixels, label = training_masks(denoiser, size, Key(0, Purpose.TRAIN, step))
        scored = (label == 0).expand(-1, 3, -1, -1)
        assert not bool(((seen[-1] == pixels.down(image)) & scored).any())


@pytest.mark.parametrize("kind", ["l1", "l2"])
@pytest.mark.parametrize("scheme", [RandomPartition(2), RandomPartition(3), Stripes()], ids=repr)
def test_loss_and_total_loss_are_the_equations(scheme: MaskScheme, kind: Any) -> None:
    denoiser = make(scheme=scheme, train_stride=3, residual=False).train()
    image, key = picture(1, 3, 14, 16), Key(1, Purpose.TRAIN, 5)
    pixels, label = training_masks(denoiser, (14, 16), key)
    sub_images, losses, merged = pixels.down(image), [], torch.zeros(())
    outside = label == 255
    for branch in range(scheme.branches):
        scored = label == branch
        output = denoiser.backbone(fill_hidden(sub_images, scored | outside, "mean"))
        losses.append(mask_loss(output, sub_images, scored, kind=kind))
        merged = torch.where(scored, output, merged)
    one = denoiser(image, step=5, seed=1, loss=kind)
    torch.testing.assert_close(one, losses[scheme.branch_of_step(key)])
    total = denoiser(image, step=5, seed=1, loss=kind, smoothness=0.05)
    smooth = smoothness_loss(pixels.up(merged, size=(14, 16)))
    torch.testing.assert_close(total, sum(losses) + 0.05 * smooth)


def test_a_training_step_is_a_function_of_seed_and_step() -> None:
    denoiser = make(train_stride=[1, 2, 3]).train()
    image = picture(2, 3, 12, 12)
    keys = [(seed, step) for seed in (0, 1) for step in range(6)]
    losses = {(seed, step): denoiser(image, seed=seed, step=step).item() for seed, step in keys}
    again = {(seed, step): denoiser(image, seed=seed, step=step).item() for seed, step in keys}
    assert losses == again
    assert len(set(losses.values())) == 12
    validation = denoiser(image, seed=0, step=0, purpose=Purpose.VALIDATE)
    assert validation.item() != losses[0, 0]


def test_every_train_stride_is_drawn() -> None:
    denoiser = make(train_stride=[1, 2, 3]).train()
    counts: list[int] = []
    denoiser.backbone.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    for step in range(300):
        denoiser(torch.zeros(1, 3, 6, 6), step=step)
    for stride in (1, 2, 3):
        assert abs(counts.count(stride**2) - 100) < 4 * math.sqrt(300 * 2 / 9)


def test_training_learns_and_hides_the_noise() -> None:
    """A few steps on one noisy flat image bring the prediction nearer to the clean value."""
    generator = torch.Generator().manual_seed(0)
    image = 0.5 + 0.2 * torch.randn(4, 1, 24, 24, generator=generator)
    denoiser = make(Mixer(1), channels=1, train_stride=1, observation=0.0).train()
    optimizer = torch.optim.Adam(denoiser.parameters(), 1e-2)
    for step in range(40):
        optimizer.zero_grad()
        denoiser(image, step=step, loss="l2").backward()
        optimizer.step()
    error = (denoiser.denoise(image) - 0.5).square().mean().sqrt()
    assert float(error) < 0.08


@pytest.mark.parametrize("scheme", [Stripes(), RandomPartition(5), Lattice(2)], ids=repr)
def test_eval_mode_denoises(scheme: MaskScheme) -> None:
    denoiser = make(scheme=scheme, stride=2).eval()
    image = picture(2, 3, 9, 10)
    assert torch.equal(denoiser(image, seed=3), denoiser.denoise(image, seed=3))


@pytest.mark.parametrize("student", [False, True])
def test_an_empty_batch_comes_back_empty(student: bool) -> None:
    more = {"preset": "student"} if student else {}
    denoiser = AsymmetricMaskDenoiser(Mixer(), **more)
    assert denoiser.denoise(torch.rand(0, 3, 16, 17)).shape == (0, 3, 16, 17)
    picture, std = denoiser.denoise(torch.rand(0, 3, 16, 17), return_std=True, passes=2)
    assert picture.shape == std.shape == (0, 3, 16, 17)


def test_numbers_of_any_kind_are_taken_and_kept_as_plain_ones() -> None:
    denoiser = AsymmetricMaskDenoiser(
        Mixer(), value_range=torch.tensor([0.0, 9.0]), train_stride=np.int64(3),
        dct_threshold=np.float32(0.5), passes=np.int8(2), observation=np.float64(0.25),
    )  # fmt: skip
    assert denoiser.value_range == (0.0, 9.0)
    denoiser.value_range = [np.float64(1), np.float32(5)]
    numbers = (*denoiser.value_range, denoiser.dct_threshold, denoiser.observation)
    assert numbers == (1.0, 5.0, 0.5, 0.25)
    assert all(type(number) is float for number in numbers)
    assert (denoiser.train_strides, denoiser.passes) == ((3,), 2)
    assert type(denoiser.passes) is type(denoiser.train_strides[0]) is int


@pytest.mark.parametrize(
    "settings",
    [
        {"value_range": 5}, {"value_range": (0, 1, 2)}, {"value_range": ("a", "b")},
        {"value_range": "01"}, {"value_range": (0, math.nan)}, {"passes": 2.5},
        {"train_stride": "2"}, {"stride": None, "chroma_radius": 1.5}, {"dct_threshold": "0.1"},
        {"dct_threshold": math.nan}, {"observation": "all"}, {"channels": 3.0},
    ],
)  # fmt: skip
def test_what_is_no_such_number_is_told(settings: dict[str, Any]) -> None:
    name = list(settings)[-1]
    with pytest.raises(SettingError, match=f"{name} is "):
        AsymmetricMaskDenoiser(Mixer(), **settings)


def test_passes_must_be_whole() -> None:
    with pytest.raises(SettingError, match=r"passes is 2\.5; a whole number"):
        AsymmetricMaskDenoiser(Mixer()).denoise(torch.rand(3, 8, 8), passes=2.5)  # type: ignore[arg-type]


def test_a_second_decision_takes_all_of_its_preset() -> None:
    denoiser = AsymmetricMaskDenoiser(Mixer(), passes=7)
    plain = AsymmetricMaskDenoiser(Mixer(), passes=7, preset="default")
    denoiser.decide("independent")
    assert denoiser.observation == "measured"
    denoiser.chroma_radius = 3
    denoiser.decide("default")
    assert (denoiser.passes, denoiser.chroma_radius) == (7, 3)
    for name in ("observation", "train_strides", "stride", "dct_threshold"):
        assert getattr(denoiser, name) == getattr(plain, name)
    assert repr(denoiser.scheme) == repr(plain.scheme)


def test_a_decision_that_is_refused_changes_nothing() -> None:
    denoiser = AsymmetricMaskDenoiser(Mixer())
    scheme = denoiser.scheme
    with pytest.raises(SettingError, match="dct_threshold"):
        denoiser.decide("independent", dct_threshold=3)
    assert (denoiser.undecided, denoiser.observation) == (True, 0)
    assert denoiser.scheme is scheme


@pytest.mark.parametrize("known", [{}, {"size_multiple": 2}, {"global_skip": True}])
def test_what_is_not_registered_is_found_out(
    known: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Skipping(nn.Module):
        def __init__(self, channels: int = 3) -> None:
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 2, stride=2)
            nn.init.zeros_(self.conv.weight)
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

        def forward(self, image: Tensor) -> Tensor:
            return image + F.interpolate(self.conv(image), scale_factor=2)

    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    registry.register_backbone("skipping", **known)(Skipping)
    named, given = (
        AsymmetricMaskDenoiser(one, dct_threshold=0, chroma_radius=0)
        for one in ("skipping", Skipping())
    )
    assert named.traits == given.traits
    assert (named.traits.size_multiple, named.traits.global_skip) == (2, True)
    image = torch.full((3, 33, 35), 0.4)
    assert torch.allclose(named.denoise(image), image)
    named.save_pretrained(tmp_path)
    assert AsymmetricMaskDenoiser.from_pretrained(tmp_path).traits == named.traits


def test_an_undecided_denoiser_comes_back_undecided(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    made = AsymmetricMaskDenoiser(Mixer(), passes=2)
    made.save_pretrained(tmp_path)
    again = AsymmetricMaskDenoiser.from_pretrained(tmp_path, backbone=Mixer())
    for denoiser in (made, again):
        assert denoiser.undecided
        denoiser.fit(noisy, steps=1, crop=32, progress=False)
    assert again.preset == made.preset == "independent"
    assert again.train_strides == made.train_strides
    assert again.passes == made.passes == 2
    made.save_pretrained(tmp_path)
    assert not AsymmetricMaskDenoiser.from_pretrained(tmp_path, backbone=Mixer()).undecided


@pytest.mark.parametrize("branch", [-1, 2])
def test_branches_that_there_are_not_are_refused(branch: int) -> None:
    seen = MaskedImage(torch.rand(1, 3, 8, 8), RandomPartition(2), Key(), 2)
    with pytest.raises(SettingError, match="from 0 to 1"):
        seen.show(branch)
    with pytest.raises(SettingError, match="from 0 to 1"):
        seen.distance(seen.show(0), branch)
    for count in (1, 3):
        with pytest.raises(SettingError, match=f"{count} outputs came"):
            seen.merge([seen.show(0)] * count)


def test_a_loss_that_is_not_known_is_refused_in_a_loop_of_ones_own() -> None:
    denoiser = AsymmetricMaskDenoiser(Mixer()).train()
    with pytest.raises(SettingError, match="loss is 'L2'"):
        denoiser(torch.rand(1, 3, 16, 16), loss="L2")


def test_double_precision_trains() -> None:
    denoiser = AsymmetricMaskDenoiser(Mixer().double()).train()
    denoiser(torch.rand(1, 3, 16, 16).double()).backward()
    assert all(weight.grad is not None for weight in denoiser.backbone.parameters())


@pytest.mark.parametrize("dtype", ["uint32", "int32", "float64"])
def test_no_strength_leaves_every_bit(dtype: str) -> None:
    random = np.random.default_rng(0)
    picture = (random.random((9, 8, 3)) * (2**31 - 1)).astype(dtype)
    denoiser = AsymmetricMaskDenoiser(Mixer(), value_range=(0, 2**31))
    same = denoiser.denoise(picture, strength=0)
    assert np.array_equal(same, picture)
    assert same is not picture


def test_settings_that_are_set_later() -> None:
    denoiser = AsymmetricMaskDenoiser(Mixer())
    denoiser.train_stride = 5
    denoiser.refine = True
    assert denoiser.train_strides == denoiser.train_stride == (5,)
    assert denoiser.refinement == denoiser.refine == Refinement()
    denoiser.dct_threshold = np.float32(0.05)  # type: ignore[assignment]
    denoiser.observation = 5
    with pytest.raises(SettingError, match="observation is 5"):
        denoiser.denoise(torch.rand(3, 16, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": None}, "seed is None"),
        ({"strength": "a"}, "strength is 'a'"),
    ],
)
def test_odd_arguments_are_told(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        AsymmetricMaskDenoiser(Mixer()).denoise(torch.rand(3, 16, 16), **arguments)


def test_odd_settings_are_told() -> None:
    with pytest.raises(SettingError, match="channels is -1"):
        AsymmetricMaskDenoiser(Mixer(), channels=-1)
    with pytest.raises(SettingError, match="turns is 'no'"):
        AsymmetricMaskDenoiser(Mixer(), turns="no")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="augment is 'no'"):
        AsymmetricMaskDenoiser(Mixer()).fit(np.zeros((40, 40, 3)), steps=1, augment="no")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="callback is 3"):
        AsymmetricMaskDenoiser(Mixer()).fit(np.zeros((40, 40, 3)), steps=1, callback=3)  # type: ignore[arg-type]


def test_pictures_whose_channels_lie_elsewhere_are_told() -> None:
    denoiser = AsymmetricMaskDenoiser(Mixer())
    with pytest.raises(SizeError, match=r"permute\(2, 0, 1\)"):
        denoiser.denoise(torch.rand(16, 17, 3))
    with pytest.raises(SizeError, match=r"moveaxis\(picture, 0, 2\)"):
        denoiser.denoise(np.zeros((3, 16, 17), np.float32))


def test_a_network_that_returns_several_in_training_is_told() -> None:
    class Deep(Mixer):
        def forward(self, image: Tensor) -> Tensor:
            made = super().forward(image)
            return (made, made) if self.training else made  # type: ignore[return-value]

    with pytest.raises(BackboneError, match="returned a tuple"):
        AsymmetricMaskDenoiser(Deep()).fit(torch.rand(3, 40, 40), steps=1, progress=False)


def test_fit_learns_where_gradients_are_off() -> None:
    denoiser = AsymmetricMaskDenoiser(Mixer())
    with torch.no_grad():
        denoiser.fit(torch.rand(3, 40, 40), steps=1, progress=False)
    assert denoiser.fit_record["steps"] == 1


def test_numbers_of_numpy_are_numbers() -> None:
    assert PixelDownsample(np.int64(2)).stride == 2  # type: ignore[arg-type]
    scheme = RandomPartition(2, fill=np.float32(0.5))  # type: ignore[arg-type]
    denoiser = AsymmetricMaskDenoiser(Mixer(), scheme=scheme)
    assert denoiser.denoise(torch.rand(3, 16, 16)).shape == (3, 16, 16)
    grid = PixelDownsample(2).grid(1, (4, 4), sample=np.int64(4))  # type: ignore[arg-type]
    assert int(grid.sample[0]) == 4


def test_models_warn_of_a_scale_left_empty() -> None:
    picture = (4095 * np.random.default_rng(0).random((24, 24, 3))).astype(np.uint16)
    model = AsymmetricMaskDenoiser.from_pretrained("camera-small")
    with pytest.warns(UserWarning, match=r"reach 40\d\d of 65535.*picture / 4095"):
        model.denoise(picture)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.denoise(picture * np.uint16(16))
        AsymmetricMaskDenoiser(Mixer()).denoise(picture)
        AsymmetricMaskDenoiser(Mixer(), value_range=CountRange(0, 9000)).denoise(picture // 2)
    with pytest.warns(UserWarning, match="fit a model on such pictures"):
        AsymmetricMaskDenoiser(Mixer(), value_range=(0, 9000)).denoise(picture)
