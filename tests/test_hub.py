"""Models on the Hub: fetched, kept, pinned and pushed by the real client, on a local server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))  # where hub_server is

from hub_server import Hub
from masked_denoise import AsymmetricMaskDenoiser, from_pretrained
from masked_denoise.errors import SettingError, WeightsError
from masked_denoise.pretrained import place
from masked_denoise.pretrained.table import PretrainedModel

CONFIG, WEIGHTS, README = "config.json", "model.safetensors", "README.md"
WEIGHTS_FETCHED = "GET /store/"
Load = Callable[..., AsymmetricMaskDenoiser]


def small(seed: int = 0) -> AsymmetricMaskDenoiser:
    torch.manual_seed(seed)
    denoiser = AsymmetricMaskDenoiser("fast-unet", backbone_args={"widths": (4, 8)}, passes=1)
    with torch.no_grad():
        for weight in denoiser.parameters():
            weight.normal_(0, 0.1)
    return denoiser


def same(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def files_of(denoiser: AsymmetricMaskDenoiser, folder: Path) -> dict[str, bytes | None]:
    denoiser.save_pretrained(folder, card=False)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def fresh_client(monkeypatch: pytest.MonkeyPatch, home: Path, **settings: str) -> None:
    """Have `huggingface_hub` imported anew: it reads its settings when it is imported."""
    for name in [one for one in os.environ if one.startswith(("HF_", "HUGGING"))]:
        monkeypatch.delenv(name)
    settings = {
        "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        **settings,
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in [one for one in sys.modules if one.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture(scope="module")
def client(server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The real client, its modules loaded once for this file with the server's address."""
    with pytest.MonkeyPatch.context() as patch:
        fresh_client(patch, tmp_path_factory.mktemp("home"), HF_ENDPOINT=server.url)
        import huggingface_hub.file_download  # noqa: F401

        yield
        for name in [one for one in sys.modules if one.partition(".")[0] == "huggingface_hub"]:
            del sys.modules[name]


@pytest.fixture
def hub(server: Hub, client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The server, without repositories; the client does not wait before it tries again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    server.forget()
    yield server
    assert not [one for one in server.asked("/store/") if one.status == 400]  # a token leaked


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`from_pretrained` with a cache of this test's own."""

    def from_cache(name: str, **options: Any) -> AsymmetricMaskDenoiser:
        return from_pretrained(name, cache_dir=tmp_path / "cache", **options)

    return from_cache


@pytest.fixture
def model(hub: Hub, tmp_path: Path) -> AsymmetricMaskDenoiser:
    """A model that is on the Hub as me/mine."""
    denoiser = small()
    hub.add("me/mine", files_of(denoiser, tmp_path / "model"))
    return denoiser


# -- loading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["me/mine", "hf-hub:me/mine", "me/mine@main"])
def test_a_repository_is_loaded(
    name: str, hub: Hub, model: AsymmetricMaskDenoiser, load: Load
) -> None:
    again = load(name)
    assert same(again, model)
    assert not again.training
    image = torch.rand(3, 20, 24)
    assert torch.equal(again.denoise(image), model.denoise(image))
    assert len(hub.asked(WEIGHTS_FETCHED)) == 1
    agents = {one.headers["user-agent"].partition(";")[0] for one in hub.asked("HEAD /me/mine")}
    assert all(agent.startswith("masked-denoise/") for agent in agents)


def test_the_second_load_fetches_nothing(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load
) -> None:
    load("me/mine")
    hub.log.clear()
    assert same(load("me/mine"), model)
    assert [(one.method, one.path) for one in hub.log] == [
        ("HEAD", f"/me/mine/resolve/main/{CONFIG}")
    ]
    load("me/mine", force_download=True)
    assert len(hub.asked(WEIGHTS_FETCHED)) == 1


def test_a_commit_is_pinned(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load, tmp_path: Path
) -> None:
    repository = hub.repositories["me/mine"]
    first = repository.branches["main"]
    repository.tags["v1"] = first
    newer = small(1)
    repository.commit(files_of(newer, tmp_path / "newer"))
    assert same(load("me/mine"), newer)
    assert same(load("me/mine", revision=first), model)
    assert same(load("me/mine@v1"), model)
    hub.log.clear()
    assert same(load(f"me/mine@{first}"), model)
    assert not hub.log, "a commit cannot change: nothing need be asked"


def test_both_files_are_of_one_commit(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load, tmp_path: Path
) -> None:
    """A push between the two downloads must not mix two models."""
    newer = files_of(small(1), tmp_path / "newer")
    repository = hub.repositories["me/mine"]

    def push(body: bytes) -> bytes:
        repository.commit(newer)
        return body

    hub.fail(f"GET .*{CONFIG}", change=push)
    assert same(load("me/mine"), model)


def test_a_subfolder_is_loaded(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load, tmp_path: Path
) -> None:
    inner = small(1)
    files = files_of(inner, tmp_path / "inner")
    hub.add("me/many", {f"a/b/{name}": data for name, data in files.items()})
    assert same(load("me/many", subfolder="a/b"), inner)
    with pytest.raises(WeightsError, match=r"has no config\.json; pass subfolder='a/b'"):
        load("me/many")
    with pytest.raises(WeightsError, match="it has one at its top: leave subfolder out"):
        load("me/mine", subfolder="a/b")


def test_a_moved_repository_is_followed(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load
) -> None:
    hub.moved["old/name"] = "me/mine"
    assert same(load("old/name"), model)


def test_dtype_and_device(hub: Hub, model: AsymmetricMaskDenoiser, load: Load) -> None:
    half = load("me/mine", dtype=torch.bfloat16, device="cpu")
    assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
    assert torch.isfinite(half.denoise(torch.rand(3, 16, 16))).all()
    with pytest.raises(SettingError, match="a floating one"):
        load("me/mine", dtype=torch.int8)
    with pytest.raises(SettingError, match="cannot be used"):
        load("me/mine", device="no-such-device")


# -- without the Hub ------------------------------------------------------------------------------


def test_offline_by_argument(hub: Hub, model: AsymmetricMaskDenoiser, load: Load) -> None:
    with pytest.raises(WeightsError, match=r"not complete in the cache.*load it once without"):
        load("me/mine", local_files_only=True)
    assert not hub.log
    load("me/mine")
    hub.log.clear()
    assert same(load("me/mine", local_files_only=True), model)
    assert not hub.log
    with pytest.raises(SettingError, match="contradict each other"):
        load("me/mine", local_files_only=True, force_download=True)


def test_offline_by_environment(
    hub: Hub,
    model: AsymmetricMaskDenoiser,
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load("me/mine")
    hub.log.clear()
    fresh_client(monkeypatch, tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert same(load("me/mine"), model)
    with pytest.raises(WeightsError, match=r"me/other .*not complete in the cache"):
        load("me/other")
    assert not hub.log


def test_no_connection(
    hub: Hub,
    model: AsymmetricMaskDenoiser,
    load: Load,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load("me/mine")
    fresh_client(monkeypatch, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")  # nobody listens
    assert same(load("me/mine"), model)
    with pytest.raises(WeightsError, match=r"no answer from the Hub.*local_files_only=True"):
        load("me/other")


# -- what can go wrong on the way -----------------------------------------------------------------


def test_a_cut_download_goes_on_where_it_ended(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 256)
    hub.fail(WEIGHTS_FETCHED, cut=1000)
    assert same(patiently(load, "me/mine"), model)
    first, second = (one.range or "" for one in hub.asked(WEIGHTS_FETCHED))
    assert not first
    assert re.fullmatch("bytes=[1-9][0-9]*-", second)


def test_a_slow_connection_goes_on(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 256)
    hub.fail(WEIGHTS_FETCHED, cut=1000, pause=1.5)  # longer than the client waits
    assert same(patiently(load, "me/mine"), model)
    assert len(hub.asked(WEIGHTS_FETCHED)) == 2


def test_a_download_that_is_always_cut_leaves_nothing(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load, tmp_path: Path
) -> None:
    fault = hub.fail(WEIGHTS_FETCHED, cut=10, times=100)
    with pytest.raises(WeightsError, match=r"no answer from the Hub|came incomplete"):
        load("me/mine")
    fault.times = 0
    with pytest.raises(WeightsError, match="not complete in the cache"):
        load("me/mine", local_files_only=True)
    assert same(load("me/mine"), model)


def patiently(load: Load, name: str) -> AsymmetricMaskDenoiser:
    """Load a model, again where it fails: not every version of the client tries again by itself."""
    for _ in range(5):
        try:
            return load(name)
        except WeightsError as error:
            message = str(error)
    raise AssertionError(message)


def corrupted(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def test_a_corrupted_download_is_refused_and_forgotten(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load
) -> None:
    hub.fail(WEIGHTS_FETCHED, change=corrupted)
    with pytest.raises(WeightsError, match=r"came damaged.*load again"):
        load("me/mine")
    with pytest.raises(WeightsError, match="not complete in the cache"):
        load("me/mine", local_files_only=True)
    assert same(load("me/mine"), model)


def test_the_digest_of_the_hub_counts_where_there_is_no_other(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load
) -> None:
    files = dict(hub.repositories["me/mine"].commits.popitem()[1])
    config = json.loads(files[CONFIG])
    del config["weights_sha256"]
    hub.add("me/mine", {**files, CONFIG: json.dumps(config).encode()})
    hub.fail(WEIGHTS_FETCHED, change=corrupted)
    with pytest.raises(WeightsError, match="came damaged"):
        load("me/mine")
    assert same(load("me/mine"), model)


def test_a_corrupted_config_is_forgotten(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load
) -> None:
    hub.fail(f"GET .*{CONFIG}", change=lambda data: b"\0" * len(data))
    with pytest.raises(WeightsError, match=r"cannot read .*out of the cache now"):
        load("me/mine")
    assert same(load("me/mine"), model)


def test_damage_in_the_cache_is_noticed(
    hub: Hub, model: AsymmetricMaskDenoiser, load: Load, tmp_path: Path
) -> None:
    load("me/mine")
    (blob,) = (tmp_path / "cache").glob(f"*/snapshots/*/{WEIGHTS}")
    blob = blob.resolve()
    blob.write_bytes(corrupted(blob.read_bytes()))
    with pytest.raises(WeightsError, match=r"is damaged.*force_download=True"):
        load("me/mine")
    assert same(load("me/mine", force_download=True), model)


@pytest.mark.parametrize(
    ("status", "words"), [(429, r"too many requests \(429\)"), (500, r"trouble of its own \(500\)")]
)
def test_a_busy_hub(
    status: int, words: str, hub: Hub, model: AsymmetricMaskDenoiser, load: Load
) -> None:
    fault = hub.fail("HEAD", status=status, times=100)
    with pytest.raises(WeightsError, match=words):
        load("me/mine")
    fault.times = 2
    assert same(patiently(load, "me/mine"), model)
    fault.times = 100  # what is in the cache does not need it
    assert same(load("me/mine"), model)


def test_a_store_that_fails(hub: Hub, model: AsymmetricMaskDenoiser, load: Load) -> None:
    hub.fail(WEIGHTS_FETCHED, status=503, times=100)
    with pytest.raises(WeightsError, match=r"trouble of its own \(503\); try again later"):
        load("me/mine")


# -- who may, and what is there -------------------------------------------------------------------


def test_a_private_repository(hub: Hub, model: AsymmetricMaskDenoiser, load: Load) -> None:
    hub.repositories["me/mine"].private = True
    with pytest.raises(WeightsError, match=r"no repository me/mine, or it is private.*token=\.\."):
        load("me/mine")
    with pytest.raises(WeightsError, match=r"token is not valid|pass a token") as caught:
        load("me/mine", token="hf_bad")
    assert "hf_bad" not in str(caught.value)
    assert same(load("me/mine", token=hub.token), model)


def test_a_gated_repository(hub: Hub, model: AsymmetricMaskDenoiser, load: Load) -> None:
    hub.repositories["me/mine"].gated = True
    with pytest.raises(WeightsError, match=rf"it is gated\); ask for it on {hub.url}/me/mine"):
        load("me/mine")
    assert same(load("me/mine", token=hub.token), model)


def test_what_is_not_there(hub: Hub, model: AsymmetricMaskDenoiser, load: Load) -> None:
    with pytest.raises(WeightsError, match="no repository me/nine, or it is private; check"):
        load("me/nine")
    hub.repositories["me/mine"].tags["v1.0"] = hub.repositories["me/mine"].branches["main"]
    with pytest.raises(WeightsError, match=r"no revision 'v1'; did you mean 'v1\.0'\?"):
        load("me/mine", revision="v1")
    hub.add("me/text", {README: b"# Not a model"})
    with pytest.raises(WeightsError, match=r"no config\.json; it holds no model of masked-denoise"):
        load("me/text")
    hub.add("me/other", {CONFIG: b'{"model_type": "bert"}'})
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        load("me/other")
    hub.add("me/other", {CONFIG: b'{"model_type": "bert"}', WEIGHTS: b"\2" + b"\0" * 7 + b"{}"})
    with pytest.raises(WeightsError, match="unknown keys: model_type"):
        load("me/other")


# -- names ----------------------------------------------------------------------------------------


@pytest.fixture
def named(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsymmetricMaskDenoiser:
    """A model with the name small-model, published at a commit with a digest."""
    denoiser = small(2)
    files = files_of(denoiser, tmp_path / "named")
    commit = hub.add("them/small-model", files)
    hub.repositories["them/small-model"].commit({README: b"# Newer"})
    digest = hashlib.sha256(files[WEIGHTS] or b"").hexdigest()
    published = PretrainedModel(
        name="small-model", backbone="fast-unet", file="small.ckpt", paper_psnr=0, paper_ssim=0,
        file_psnr=0, revision=commit, sha256=digest,
    )  # fmt: skip
    monkeypatch.setenv("MASKED_DENOISE_HUB_OWNER", "them")
    monkeypatch.setattr(place, "pretrained_models", lambda: {"small-model": published})
    return denoiser


def test_a_named_model(hub: Hub, named: AsymmetricMaskDenoiser, load: Load) -> None:
    assert same(load("small-model"), named)
    hub.log.clear()
    assert same(load("small-model"), named)
    assert not hub.log, "its commit is pinned"
    assert same(load("small-model@main"), named)
    with pytest.raises(WeightsError, match="did you mean 'small-model'"):
        load("smal-model")


def test_a_named_model_that_was_exchanged(
    hub: Hub, named: AsymmetricMaskDenoiser, load: Load, tmp_path: Path
) -> None:
    """Consistent in itself, but not what the table says."""
    repository = hub.repositories["them/small-model"]
    commit = next(iter(repository.commits))
    repository.commits[commit] = dict(files_of(small(3), tmp_path / "other"))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="came damaged"):
        load("small-model")


def test_a_named_model_that_is_not_published(
    hub: Hub, named: AsymmetricMaskDenoiser, load: Load
) -> None:
    del hub.repositories["them/small-model"]
    with pytest.raises(WeightsError, match=r"masked-denoise convert small\.ckpt -o small-model"):
        load("small-model")
    with pytest.raises(WeightsError, match=r"masked-denoise convert small\.ckpt"):
        load("small-model", local_files_only=True)


def test_what_a_string_means(
    named: AsymmetricMaskDenoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    find = place.find_place
    assert find("a/b") == place.ModelSource(repository="a/b")
    assert find("a/b", revision="x") == find("hf-hub:a/b@x") == find("a/b@x")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert find("a/b").folder == Path("a/b")
    assert find("hf-hub:a/b").repository == "a/b"
    assert find("local-dir:no/such").folder == Path("no/such")
    assert find(tmp_path, subfolder="a/b").folder == tmp_path / "a" / "b"
    (tmp_path / "small-model").mkdir()
    with pytest.raises(SettingError, match="'local-dir:small-model' for the folder"):
        find("small-model")
    assert find("./small-model").folder == Path("small-model")


@pytest.mark.parametrize(
    ("name", "options", "kind", "words"),
    [
        ("a/b@x", {"revision": "y"}, SettingError, "given twice"),
        ("local-dir:a", {"revision": "y"}, SettingError, "is on this machine"),
        ("hf-hub:a", {}, WeightsError, "'hf-hub:owner/name' or"),
        ("hf-hub:a/b/c", {}, WeightsError, "is not a repository"),
        ("hf-hub:a/b@", {}, SettingError, "a branch, tag or commit"),
        ("hf-hub:../b", {}, WeightsError, "is not a repository"),
        ("hf-hub:a/..", {}, WeightsError, "is not a repository"),
        ("a/b", {"revision": "../../x"}, SettingError, "a branch, tag or commit"),
        ("a/b@/etc/passwd", {}, SettingError, "a branch, tag or commit"),
        ("a/b", {"subfolder": "../x"}, SettingError, "names of folders"),
        ("a/b", {"subfolder": "/etc"}, SettingError, "names of folders"),
        ("a/b", {"subfolder": "c:\\x"}, SettingError, "names of folders"),
        ("https://huggingface.co/a/b/tree/main", {}, WeightsError, "write 'hf-hub:a/b'"),
        ("no/such/folder", {}, WeightsError, "no such file or folder"),
        ("./nothing", {}, WeightsError, "no such file or folder"),
        ("nothing", {}, WeightsError, "A repository of the Hub is written owner/name"),
        ("", {}, WeightsError, "is no file, folder or pretrained model"),
        ("a\0b", {}, WeightsError, "is no file, folder or pretrained model"),
    ],
)
def test_what_a_string_cannot_mean(
    name: str, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        from_pretrained(name, **options)


# -- pushing --------------------------------------------------------------------------------------


def test_a_model_is_pushed_and_loaded(hub: Hub, load: Load) -> None:
    denoiser = small(4)
    url = denoiser.push_to_hub(
        "me/new", private=True, token=hub.token, license="MIT", training_data="Photographs.",
        metrics={"SIDD": {"PSNR": 31.5}}, before_after=torch.rand(3, 30, 40),
    )  # fmt: skip
    repository = hub.repositories["me/new"]
    assert repository.private
    assert url == f"{hub.url}/me/new/commit/{repository.branches['main']}"
    files = repository.commits[repository.branches["main"]]
    assert set(files) == {CONFIG, WEIGHTS, README, "before_after.png", ".gitattributes"}
    assert 'from_pretrained("me/new")' in files[README].decode()
    again = load("me/new", token=hub.token)
    assert same(again, denoiser)
    assert again.card == {
        "license": "MIT", "training_data": "Photographs.", "metrics": {"SIDD": {"PSNR": 31.5}},
    }  # fmt: skip
    newer = small(5)
    newer.push_to_hub("me/new", token=hub.token)
    assert same(load("me/new", token=hub.token), newer)


def test_a_branch_and_a_pull_request(hub: Hub, model: AsymmetricMaskDenoiser, load: Load) -> None:
    newer = small(5)
    newer.push_to_hub("me/mine", token=hub.token, revision="trial")
    assert same(load("me/mine@trial"), newer)
    assert same(load("me/mine"), model)
    url = newer.push_to_hub("me/mine", token=hub.token, create_pr=True)
    assert url.endswith("/discussions/1")


def test_a_readme_edited_on_the_hub_stays(hub: Hub, load: Load) -> None:
    small(4).push_to_hub("me/new", token=hub.token)
    repository = hub.repositories["me/new"]
    first = repository.commits[repository.branches["main"]][README]
    small(4).push_to_hub("me/new", token=hub.token, license="MIT")
    second = repository.commits[repository.branches["main"]][README]
    assert first != second
    mine = b"---\nlicense: mit\n---\n# Mine\n" + second
    repository.commit({README: mine})
    small(5).push_to_hub("me/new", token=hub.token)
    assert repository.commits[repository.branches["main"]][README] == mine


def test_pushing_is_refused(hub: Hub, model: AsymmetricMaskDenoiser) -> None:
    with pytest.raises(WeightsError, match=r"cannot push to me/new.*pass token=\S+ \(with write"):
        model.push_to_hub("me/new")
    with pytest.raises(WeightsError, match="pass a token with write access"):
        model.push_to_hub("me/new", token="hf_bad")
    assert "me/new" not in hub.repositories
    with pytest.raises(WeightsError, match="owner/name"):
        model.push_to_hub("new", token=hub.token)


# -- a network of one's own -----------------------------------------------------------------------


class Wrapped(nn.Module):
    """A network with an attribute called `module`, as wrappers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)  # type: ignore[no-any-return]


def test_a_network_of_ones_own_by_way_of_the_hub(hub: Hub, load: Load) -> None:
    denoiser = AsymmetricMaskDenoiser(Wrapped())
    denoiser.push_to_hub("me/own", token=hub.token)
    with pytest.raises(WeightsError, match=r"a network of your own.*pass backbone="):
        load("me/own")
    assert same(load("me/own", backbone=Wrapped()), denoiser)
    with pytest.raises(WeightsError, match=r"do not fit the backbone.*module\.weight"):
        load("me/own", backbone=nn.Conv2d(3, 3, 3, padding=1))
    files = hub.repositories["me/own"].commits[hub.repositories["me/own"].branches["main"]]
    assert "backbone=network" in files[README].decode()


# -- as a user has it -----------------------------------------------------------------------------


def test_a_program_of_its_own(hub: Hub, model: AsymmetricMaskDenoiser, tmp_path: Path) -> None:
    """The client as it is, led here by HF_ENDPOINT alone."""
    code = "import masked_denoise as m; print(m.from_pretrained('me/mine').backbone_args)"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | settings, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "{'widths': [4, 8]}\n"
    assert len(hub.asked(WEIGHTS_FETCHED)) == 1
