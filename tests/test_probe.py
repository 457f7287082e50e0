"""The trial of a network: what it finds, and that it leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masked_denoise.errors import BackboneError
from masked_denoise.probe import is_blind, probe


class From(nn.Module):
    """A network made of one function, with a convolution in front."""

    def __init__(self, function: Callable[[Tensor], object], channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.function = function

    def forward(self, image: Tensor) -> object:
        return self.function(self.conv(image))


def down_and_up(multiple: int) -> Callable[[Tensor], Tensor]:
    """Return a function that gives another size unless both sides are multiples."""

    def run(x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, multiple), scale_factor=multiple)

    return run


def windows(multiple: int) -> Callable[[Tensor], Tensor]:
    """Return a function that fails unless both sides are multiples, as window attention does."""

    def run(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.reshape(b, c, h // multiple, multiple, w // multiple, multiple).reshape(x.shape)

    return run


@pytest.mark.parametrize("multiple", [1, 2, 4, 8, 16, 32, 64, 128])
@pytest.mark.parametrize("kind", [down_and_up, windows])
def test_size_multiple_is_found(
    multiple: int, kind: Callable[[int], Callable[[Tensor], Tensor]]
) -> None:
    assert probe(From(kind(multiple)), 3).size_multiple == multiple


@pytest.mark.parametrize("multiple", [11, 13, 33])
def test_other_multiples_are_an_error_and_not_a_wrong_answer(multiple: int) -> None:
    with pytest.raises(BackboneError, match="does not keep the shape"):
        probe(From(down_and_up(multiple)), 3)


def test_global_skip_is_told_from_none() -> None:
    torch.manual_seed(1)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, image: Tensor) -> Tensor:
            return image - self.body(image)

    assert probe(Skip(), 3).global_skip
    assert not probe(body, 3).global_skip
    assert probe(nn.Identity(), 3).global_skip
    assert not probe(From(lambda x: x * 0), 3).global_skip


def test_memory_layout_that_is_not_taken_is_found() -> None:
    assert probe(nn.Conv2d(3, 3, 3, padding=1), 3).channels_last

    class Flat(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.view(image.shape[0], -1).view(image.shape)

    assert not probe(Flat(), 3).channels_last


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_channels(channels: int) -> None:
    assert probe(nn.Conv2d(channels, channels, 1), channels).size_multiple == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_of_the_weights_is_used(dtype: torch.dtype) -> None:
    assert probe(nn.Conv2d(3, 3, 1).to(dtype), 3).size_multiple == 1


def test_trial_leaves_no_trace() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 3, 1)
    )
    network[1].eval()  # a frozen normalisation in a network that trains
    modes = [module.training for module in network.modules()]
    state = copy.deepcopy(network.state_dict())
    random_state = torch.get_rng_state()
    probe(network, 3)
    assert modes == [True, True, False, True, True]
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_modes_come_back_after_a_failure_and_noise_is_not_drawn_from_the_user() -> None:
    network = From(lambda x: F.dropout(x, 0.5, training=True)[..., 1:])
    random_state = torch.get_rng_state()
    with pytest.raises(BackboneError):
        probe(network, 3)
    assert network.training
    assert torch.equal(torch.get_rng_state(), random_state)


def test_messages_say_what_to_change() -> None:
    with pytest.raises(BackboneError, match=r"need 3 channels each; pass channels="):
        probe(nn.Conv2d(1, 1, 3, padding=1), 3)
    with pytest.raises(BackboneError, match=r"\(1, 3, \d+, \d+\) went in, \(1, 5, \d+, \d+\)"):
        probe(nn.Conv2d(3, 5, 3, padding=1), 3)
    with pytest.raises(BackboneError, match=r"returned a tuple.*picks it"):
        probe(From(lambda x: (x, x)), 3)
    with pytest.raises(BackboneError, match="boom") as caught:
        probe(From(_fail), 3)
    assert isinstance(caught.value.__cause__, RuntimeError)


def _fail(x: Tensor) -> Tensor:
    raise RuntimeError("boom")


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_network_that_works_in_place_is_seen_as_it_is(sign: float) -> None:
    class Copies(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.weight, self.inplace = nn.Parameter(torch.tensor(sign)), inplace

        def forward(self, image: Tensor) -> Tensor:
            return image.mul_(self.weight) if self.inplace else image * self.weight

    found = [probe(Copies(inplace), 3) for inplace in (False, True)]
    assert found[0] == found[1]
    assert found[0].global_skip == (sign > 0)


def test_a_network_that_works_in_place_may_be_blind() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, image: Tensor) -> Tensor:
            return image.copy_(image.roll(1, dims=3) * self.weight)

    with torch.no_grad():
        assert is_blind(Shifted(), 3, 1) is True


@pytest.mark.parametrize("multiple", [3, 5, 6, 7, 9, 12, 24, 48, 112])
def test_multiples_that_are_no_power_of_two(multiple: int) -> None:
    assert probe(From(windows(multiple)), 3).size_multiple == multiple


def test_a_multiple_that_is_known_is_not_looked_for() -> None:
    assert probe(From(windows(11)), 3, size_multiple=11).size_multiple == 11
    with pytest.raises(BackboneError, match="for sides of 2·n"):
        probe(From(windows(4)), 3, size_multiple=2)


@pytest.mark.parametrize("how", ["in place", "anew"])
def test_buffers_that_a_network_changes_come_back(how: str) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.register_buffer("mean", torch.zeros(1))

        def forward(self, image: Tensor) -> Tensor:
            if how == "in place":
                self.mean += image.mean()
            else:
                self.mean = self.mean + image.mean()
            return self.conv(image)  # type: ignore[no-any-return]

    network = Counting()
    buffer = network.mean
    probe(network, 3)
    assert network.mean is buffer
    assert float(buffer) == 0


def test_networks_without_memory_and_for_volumes_are_refused() -> None:
    with pytest.raises(BackboneError, match="to_empty"):
        probe(nn.Conv2d(3, 3, 3, padding=1, device="meta"), 3)
    with pytest.raises(BackboneError, match="one image, but not two"):
        probe(nn.Conv3d(1, 1, 3, padding=1), 1)


def test_a_first_parameter_that_is_no_float() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = nn.Parameter(torch.zeros(1, dtype=torch.int64), requires_grad=False)
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, image: Tensor) -> Tensor:
            return self.conv(image)  # type: ignore[no-any-return]

    assert probe(Counted(), 3).size_multiple == 1


def test_buffers_that_are_not_there_yet_or_not_a_number() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.LazyBatchNorm2d()
            self.register_buffer("hole", torch.full((1,), torch.nan).expand(4))

        def forward(self, image: Tensor) -> Tensor:
            return self.norm(self.conv(image))  # type: ignore[no-any-return]

    assert probe(Odd(), 3).size_multiple == 1
