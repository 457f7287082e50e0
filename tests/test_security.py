"""Files from strangers: every one is either a model or a WeightsError, and none runs code."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from masked_denoise import (
    AsymmetricMaskDenoiser,
    from_pretrained,
    list_backbones,
    register_backbone,
)
from masked_denoise.backbones import registry
from masked_denoise.checkpoint import CONFIG, WEIGHTS, load_model, recipe_of
from masked_denoise.errors import CheckpointError, SettingError, WeightsError
from masked_denoise.refine import Refinement
from masked_denoise.scheme import Lattice, RandomPartition

MUTATIONS = 600  # of each file
STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, 10**9, 10**30, -(10**9), 0.5, 1e-300, 1e308, "",
    "x", "\0", "../../etc/passwd", "x" * 5000, [], [0], [1, 2], [[1]], [10**9], [1] * 3000, {},
    {"name": None}, {"": {}}, {"a": [{"b": None}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The two files of a tiny model that uses all that a config can say."""
    denoiser = AsymmetricMaskDenoiser(
        "fast-unet", backbone_args={"widths": (2, 4)}, refine=Refinement(2),
        scheme=RandomPartition(4, inference=Lattice(4)), train_stride=(2, 3), value_range=(0, 9),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("good")
    denoiser.save_pretrained(
        folder, license="mit", training_data="None.", metrics={"a": 1}, card=False
    )
    return (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()


@pytest.fixture
def folder(files: tuple[bytes, bytes], tmp_path: Path) -> Path:
    write(tmp_path, *files)
    return tmp_path


def write(folder: Path, config: bytes, weights: bytes) -> None:
    (folder / CONFIG).write_bytes(config)
    (folder / WEIGHTS).write_bytes(weights)


def memory() -> int:
    """Return the bytes of memory that this process has taken at its largest."""
    resource = pytest.importorskip("resource")
    return 1024 * int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def outcome(folder: Path) -> str:
    """Return "loaded" where a model came of a folder and works, else the message of the error."""
    try:
        denoiser = load_model(folder)
    except WeightsError as error:
        told = str(error)
        assert 0 < len(told) < 2000, told[:200]
        told.encode()
        return told
    if max(denoiser.channels, denoiser.stride, denoiser.passes) < 40:
        assert isinstance(repr(denoiser.scheme), str)
    return "loaded"


# -- mutations ------------------------------------------------------------------------------------


def mutate_bytes(data: bytes, draw: random.Random) -> bytes:
    """Return data with some bytes changed, cut, doubled or put in."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place = draw.randrange(len(changed))
        kind = draw.randrange(6)
        if kind == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[place] = draw.randrange(256)
        elif kind == 2:
            del changed[place : place + draw.choice((1, 3, 50))]
        elif kind == 3:
            changed[place:place] = changed[max(place - draw.choice((1, 9, 60)), 0) : place]
        elif kind == 4:
            changed[place:place] = draw.choice((b'"', b"[", b"}", b"-", b"9" * 30, b"NaN", b"\xff"))
        else:
            del changed[place:]
        if not changed:
            break
    return bytes(changed)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) in a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value))
    found: list[tuple[Any, Any]] = []
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


def mutate_json(data: bytes, draw: random.Random) -> bytes:
    """Return JSON with some values replaced, dropped, added or moved."""
    value = json.loads(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        container, key = draw.choice(places(value))
        kind = draw.randrange(4)
        if kind < 2:
            container[key] = copy.deepcopy(draw.choice(STRANGE))
        elif kind == 2 and isinstance(container, dict):
            new = draw.choice(("x", "__class__", "name", "channels", ""))
            container[new] = copy.deepcopy(draw.choice(STRANGE))
        else:
            del container[key]
        if not value:
            break
    return json.dumps(value).encode()


def split(data: bytes) -> tuple[bytes, bytes]:
    """Return the header and the rest of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return data[8 : 8 + length], data[8 + length :]


def join(header: bytes, rest: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + rest


@pytest.mark.parametrize("mutate", [mutate_bytes, mutate_json])
def test_mutated_configs(
    mutate: Callable[[bytes, random.Random], bytes], files: tuple[bytes, bytes], tmp_path: Path
) -> None:
    before, draw, outcomes = memory(), random.Random(7), []
    for _ in range(MUTATIONS // 2):
        write(tmp_path, mutate(files[0], draw), files[1])
        outcomes.append(outcome(tmp_path))
    assert 0 < outcomes.count("loaded") < len(outcomes) // 2
    assert memory() - before < 500e6


@pytest.mark.parametrize("mutate", [mutate_bytes, mutate_json])
def test_mutated_headers(
    mutate: Callable[[bytes, random.Random], bytes], files: tuple[bytes, bytes], tmp_path: Path
) -> None:
    """Without the digest, which would notice them all."""
    config = json.loads(files[0])
    del config["weights_sha256"]
    header, rest = split(files[1])
    before, draw, outcomes = memory(), random.Random(8), []
    for number in range(MUTATIONS // 2):
        length = draw.choice((0, 1, 2**60, 2**64 - 1, 10**8, 8, len(header) - 1))
        weights = join(mutate(header, draw), rest, None if number % 5 else length)
        write(tmp_path, json.dumps(config).encode(), weights)
        outcomes.append(outcome(tmp_path))
    assert outcomes.count("loaded") < len(outcomes) // 2
    assert len(set(outcomes)) > 10
    assert memory() - before < 500e6


def test_mutated_weights_are_noticed_by_their_digest(
    files: tuple[bytes, bytes], tmp_path: Path
) -> None:
    draw = random.Random(9)
    for _ in range(100):
        weights = mutate_bytes(files[1], draw)
        write(tmp_path, files[0], weights)
        assert (outcome(tmp_path) == "loaded") == (weights == files[1])


# -- every key ------------------------------------------------------------------------------------


def test_wrong_types_for_every_key(files: tuple[bytes, bytes], tmp_path: Path) -> None:
    good = json.loads(files[0])
    for key in good:
        refused = 0
        for strange in (*STRANGE, ...):
            config = {**good, key: strange}
            if strange is ...:
                del config[key]
            write(tmp_path, json.dumps(config).encode(), files[1])
            refused += outcome(tmp_path) != "loaded"
        assert refused >= 5 or key in ("training", "license", "training_data", "metrics"), key


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"stride": 1', '"stride": 1, "stride": 2', "the key 'stride' comes twice"),
        ('"observation": 0.0', '"observation": NaN', "NaN is not JSON"),
        ('"observation": 0.0', '"observation": Infinity', "Infinity is not JSON"),
        ('"observation": 0.0', '"observation": 1e999', "cannot be stored: it is inf"),
        ('"preset": null', '"preset": "\\ud800"', "cannot be stored"),
        ('"training": {}', '"training": ' + "[" * 100_000, "nested too deeply"),
        ('"training": {}', '"training": ' + '{"a":' * 40 + "1" + "}" * 40, "more than 16 levels"),
        ('"training": {}', '"training": {"a": [' + "0," * 30_000 + "0]}", "more than 20000 values"),
        ('"passes": 4', '"passes": ' + "9" * 5000, "cannot read|whole number"),
        ('"passes": 4', '"passes": true', "passes is True"),
        ('"channels": 3', '"channels": 1000000000', "channels is 1000000000"),
        ('"license": "mit"', '"auto_map": {"x": "evil.py"}', "unknown keys: auto_map"),
        ('"name": "fast-unet"', '"name": "os.system"', "unknown backbone"),
        ('"name": "fast-unet"', '"name": "../fast_unet"', "unknown backbone"),
        ('"name": "random"', '"name": "__init__"', "unknown scheme"),
    ],
)  # fmt: skip
def test_what_a_config_may_not_say(
    folder: Path, files: tuple[bytes, bytes], old: str, new: str, words: str
) -> None:
    text = files[0].decode()
    assert old in text
    (folder / CONFIG).write_text(text.replace(old, new, 1))
    with pytest.raises(WeightsError, match=words):
        load_model(folder)


# -- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {"widths": [10**5, 10**5]},
        {"widths": [10**7, 10**7]},
        {"widths": [10**9]},
        {"widths": [2] * 2000},
        {"widths": []},
        {"widths": [0, 4]},
        {"widths": [-2, 4]},
        {"widths": ["2", "4"]},
        {"widths": 4},
        {"widths": None},
        {"width": 4},
        {"channels": 3},
        {"self": 1},
        {"": 1},
    ],
)
def test_absurd_networks_are_refused_before_they_are_made(
    folder: Path, files: tuple[bytes, bytes], arguments: dict[str, Any]
) -> None:
    config = json.loads(files[0])
    config["backbone"]["arguments"] = arguments
    (folder / CONFIG).write_text(json.dumps(config))
    before = memory()
    with pytest.raises(WeightsError):
        load_model(folder)
    assert memory() - before < 300e6


def test_a_network_without_end_is_stopped(
    folder: Path, files: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_backbones()  # those that are built in stay
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))

    @register_backbone("deep-example", license="MIT")
    def deep(channels: int = 3, *, depth: int = 1) -> nn.Module:
        return nn.Sequential(*(nn.Conv2d(channels, channels, 1) for _ in range(depth)))

    config = json.loads(files[0])
    config["backbone"] = {"name": "deep-example", "arguments": {"depth": 10**7}}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="far larger than the weights stored"):
        load_model(folder)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]},
        {"dtype": "F32", "shape": [2**32, 2**32], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1] * 3000, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0, 2**40], "data_offsets": [0, 0]},
        {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]},
        "x",
        None,
    ],
)  # fmt: skip
def test_absurd_headers(folder: Path, entry: Any) -> None:
    for name in ("head.bias", "x" * 10_000, "a\0b", "../x", ""):
        header = json.dumps({name: entry}).encode()
        (folder / WEIGHTS).write_bytes(join(header, b"\0" * 8))
        assert outcome(folder) != "loaded"


@pytest.mark.parametrize("length", [2**60, 2**64 - 1, 2**63, 10**8, 0, 1])
def test_absurd_header_lengths(folder: Path, files: tuple[bytes, bytes], length: int) -> None:
    header, rest = split(files[1])
    (folder / WEIGHTS).write_bytes(join(header, rest, length))
    before = memory()
    assert "cannot read" in outcome(folder)
    assert memory() - before < 100e6


# -- no code --------------------------------------------------------------------------------------


class Bomb:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def pickles(target: Path) -> dict[str, Callable[[Path], object]]:
    bomb = Bomb(target)
    return {
        "pickle": lambda path: path.write_bytes(pickle.dumps(bomb)),
        "archive": lambda path: torch.save({"a": bomb}, path),
        "old": lambda path: torch.save(
            {"a": bomb}, path, _use_new_zipfile_serialization=False
        ),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["pickle", "archive", "old"])
def test_pickles_are_refused(folder: Path, kind: str) -> None:
    target = folder / "made"
    save = pickles(target)[kind]
    for name in (WEIGHTS, CONFIG):
        save(folder / name)
        assert outcome(folder) != "loaded"
    save(folder / "last.pt")
    with pytest.raises(CheckpointError):
        from_pretrained(folder / "last.pt")
    (folder / WEIGHTS).unlink()
    assert not target.exists()
    pickle_loads = pickle.loads  # the bombs work
    pickle_loads(pickle.dumps(Bomb(target)))
    assert target.exists()


def test_other_weights_in_a_folder_are_not_read(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin is not read: .* can run code"):
        load_model(folder)


def test_training_states_of_strangers(folder: Path, files: tuple[bytes, bytes]) -> None:
    recipe = recipe_of(AsymmetricMaskDenoiser(backbone_args={"widths": (2, 4)}))
    wrong: list[dict[str, Any]] = [
        {"recipe": 1, "average": {}}, {"recipe": {}, "average": {"a": 1}}, {"recipe": recipe},
        {"recipe": recipe, "average": None, "backbone": [1]},
        {"recipe": {**recipe, "channels": 10**9}, "average": {"a": torch.zeros(1)}},
        {"recipe": {**recipe, "stride": (1,)}, "average": {"a": torch.zeros(1)}},
        {"recipe": recipe, "average": {"a": torch.zeros(1)}},
    ]  # fmt: skip
    for state in wrong:
        torch.save({"format": 1, **state}, folder / "last.pt")
        with pytest.raises(CheckpointError):
            load_model(folder / "last.pt")


# -- paths ----------------------------------------------------------------------------------------


def test_a_config_that_is_another_file_tells_nothing_of_it(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("root:hunter2:0:0")
    (folder / CONFIG).unlink()
    (folder / CONFIG).symlink_to(secret)
    message = outcome(folder)
    assert "cannot read" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_what_is_no_file_is_refused_at_once(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    assert "it is no file" in outcome(folder)
    (folder / name).rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / name)  # a reader would wait for ever
        done: list[str] = []
        thread = threading.Thread(target=lambda: done.append(outcome(folder)), daemon=True)
        thread.start()
        thread.join(20)
        assert done
        assert "it is no file" in done[0]
    if Path("/dev/zero").exists():
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/zero")
        assert "it is no file" in outcome(folder)


def test_a_large_config_is_not_read(folder: Path) -> None:
    with (folder / CONFIG).open("wb") as file:
        file.truncate(10**9)
    before = memory()
    with pytest.raises(WeightsError, match="larger than"):
        load_model(folder)
    assert memory() - before < 100e6


@pytest.mark.parametrize("sub", ["..", "../x", "a/../..", "/etc", "a//b", "a\\b", "c:", "", "a\0"])
def test_subfolders_stay_inside(folder: Path, sub: str) -> None:
    with pytest.raises(SettingError, match="subfolder"):
        from_pretrained(folder, subfolder=sub)


def test_a_subfolder_is_loaded(folder: Path, files: tuple[bytes, bytes]) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    write(folder / "a" / "b", *files)
    assert from_pretrained(folder, subfolder="a/b").channels == 3


# -- what is saved --------------------------------------------------------------------------------


@dataclass
class Options:
    """What some networks take instead of arguments."""

    width: int = 4


class Loose(nn.Module):
    """A network that would ignore weights which do not fit."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 1), nn.Conv2d(width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))  # type: ignore[no-any-return]

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state, strict=False, assign=assign)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Options(), r"backbone_args\['x'\] cannot be stored.*a Options.*dataclasses\.asdict"),
        ({"deep": [1, {2, 3}]}, r"backbone_args\['x'\]\['deep'\]\[1\]"),
        ({1: "a"}, r"backbone_args\['x'\] cannot be stored"),
        (float("nan"), r"backbone_args\['x'\] cannot be stored: it is nan"),
        (torch.zeros(1), r"backbone_args\['x'\] cannot be stored"),
        (nn.ReLU, r"backbone_args\['x'\] cannot be stored"),
        (b"bytes", r"backbone_args\['x'\] cannot be stored"),
        (10**9, "no number over 10,000,000"),
    ],
)  # fmt: skip
def test_arguments_that_json_cannot_hold_are_named(
    value: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list_backbones()  # those that are built in stay
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))
    register_backbone("takes-x")(lambda channels=3, x=None: nn.Conv2d(channels, channels, 1))
    denoiser = AsymmetricMaskDenoiser("takes-x", backbone_args={"x": value})
    with pytest.raises(WeightsError, match=name):
        denoiser.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_cannot_loosen_the_check(tmp_path: Path) -> None:
    AsymmetricMaskDenoiser(Loose()).save_pretrained(tmp_path, card=False)
    assert isinstance(from_pretrained(tmp_path, backbone=Loose()).backbone, Loose)

    class More(Loose):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Parameter(torch.zeros(1))

    with pytest.raises(WeightsError, match="missing extra"):
        from_pretrained(tmp_path, backbone=More())


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    class Counter(nn.Conv2d):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__(3, 3, 1)
            self.register_buffer("count", torch.zeros(1, dtype=dtype))

    AsymmetricMaskDenoiser(Counter(torch.int64)).save_pretrained(tmp_path, card=False)
    from_pretrained(tmp_path, backbone=Counter(torch.int64))
    with pytest.raises(WeightsError, match=r"'count' is torch\.int64 there"):
        from_pretrained(tmp_path, backbone=Counter(torch.float32))
