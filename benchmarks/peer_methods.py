"""Other programs' denoisers, one function each; `peers.py` runs it in separate environments.

    ENV/bin/python benchmarks/peer_methods.py METHOD SETTINGS_JSON INPUT_FOLDER OUTPUT_FOLDER

Reads NAME.npy, noisy pictures (H, W, 3) uint8 (floats for methods for grey pictures), and a list of
settings. For each setting it writes the denoised pictures into OUTPUT_FOLDER/0, /1 and so on, and
times.json: processor seconds for each picture, and for training. Needs only numpy and the method's
package. Every method runs in one thread.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
)

import numpy as np

Settings = dict[str, Any]
Pictures = dict[str, np.ndarray]

AUTODEN_SIDE = 128  # of the squares that auto-denoise learns from


def opencv_nlm(noisy: np.ndarray, settings: Settings) -> np.ndarray:
    """Non-local means on luma and chroma of CIELAB; h and h_colour on the scale of 8 bits."""
    import cv2

    cv2.setNumThreads(1)
    blue_first = np.ascontiguousarray(noisy[..., ::-1])
    clean = cv2.fastNlMeansDenoisingColored(
        blue_first, None, settings["h"], settings["h_colour"], 7, 21
    )
    return np.ascontiguousarray(clean[..., ::-1])


def skimage_nlm(noisy: np.ndarray, settings: Settings) -> np.ndarray:
    """Non-local means on all channels at once; h is a multiple of the picture's estimated sigma."""
    from skimage.restoration import denoise_nl_means

    image = noisy / np.float32(255)
    clean = denoise_nl_means(
        image, h=settings["factor"] * sigma_of(image), patch_size=5, patch_distance=6,
        fast_mode=True, channel_axis=-1,
    )  # fmt: skip
    return eight_bit(clean)


def skimage_wavelet(noisy: np.ndarray, settings: Settings) -> np.ndarray:
    """Wavelet shrinkage in YCbCr; each channel's own estimated sigma times a factor."""
    from skimage.color import rgb2ycbcr, ycbcr2rgb
    from skimage.restoration import denoise_wavelet, estimate_sigma

    image = rgb2ycbcr(noisy)
    planes = []
    for channel in range(3):
        plane = (image[..., channel] - 16) / 224
        factor = settings["factor" if channel == 0 else "chroma_factor"]
        sigma = factor * max(float(estimate_sigma(plane)), 1e-4)
        planes.append(denoise_wavelet(plane, sigma=sigma, method=settings["method"], mode="soft"))
    return eight_bit(ycbcr2rgb(np.stack(planes, -1) * 224 + 16))


def bm3d(noisy: np.ndarray, settings: Settings) -> np.ndarray:
    """BM3D in an opponent colour space; sigma on the scale of 8 bits, or of the picture's own."""
    import bm3d as package

    profile = package.BM3DProfile()
    profile.num_threads = 1
    image = noisy / 255.0
    sigma = settings["sigma"] / 255 if "sigma" in settings else settings["factor"] * sigma_of(image)
    return eight_bit(package.bm3d_rgb(image, sigma, profile))


def bm3d_grey(noisy: np.ndarray, settings: Settings) -> np.ndarray:
    """BM3D of one channel of floats, noise of the standard deviation sigma; not rounded."""
    import bm3d as package

    profile = package.BM3DProfile()
    profile.num_threads = 1
    low, high = float(noisy.min()), float(noisy.max())
    clean = package.bm3d((noisy - low) / (high - low), settings["sigma"] / (high - low), profile)
    return np.asarray(clean) * (high - low) + low


def sigma_of(image: np.ndarray) -> float:
    """Return the mean over channels of the noise level that wavelets show."""
    from skimage.restoration import estimate_sigma

    return max(float(np.mean(estimate_sigma(image, channel_axis=-1))), 1e-3)


def eight_bit(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def careamics_n2v(pictures: Pictures, settings: Settings) -> Iterator[tuple[str, np.ndarray]]:
    """Noise2Void of CAREamics, one network trained on all the pictures."""
    import torch
    from careamics import CAREamist
    from careamics.config import create_n2v_config

    torch.set_num_threads(1)
    names = list(pictures)
    stack = np.stack([pictures[name] for name in names]).astype(np.float32)
    config = create_n2v_config(
        "peers", data_type="array", axes="SYXC", n_channels=3, patch_size=[64, 64],
        batch_size=16, num_epochs=settings["epochs"],
    )  # fmt: skip
    careamist = CAREamist(config, work_dir=settings["work"], enable_progress_bar=False)
    careamist.train(train_data=stack)
    yield "", stack[0]  # the end of training
    for name, picture in zip(names, stack, strict=True):
        found, _ = careamist.predict(
            picture[None], axes="SYXC", data_type="array", tile_size=(256, 256),
            tile_overlap=(48, 48),
        )  # fmt: skip
        clean = np.squeeze(np.asarray(found[0]))
        yield name, eight_bit((clean if clean.shape[-1] == 3 else np.moveaxis(clean, 0, -1)) / 255)


def autoden_n2v(pictures: Pictures, settings: Settings) -> Iterator[tuple[str, np.ndarray]]:
    """Noise2Void of auto-denoise, one network trained on the middle of every picture.

    An epoch of it is one step on everything at once: whole pictures would get too few.
    """
    import autoden
    import torch

    torch.set_num_threads(1)
    names = list(pictures)
    stack = np.stack([np.moveaxis(pictures[name], -1, 0) for name in names]) / np.float32(255)
    top, left = ((side - AUTODEN_SIDE) // 2 for side in stack.shape[2:])
    squares = stack[:, :, top : top + AUTODEN_SIDE, left : left + AUTODEN_SIDE]
    network = autoden.NetworkParamsUNet(n_features=16, n_channels_in=3, n_channels_out=3)
    denoiser = autoden.N2V(model=network)
    data = denoiser.prepare_data(squares, channel_axis=1)
    denoiser.train(*data, epochs=settings["epochs"], learning_rate=1e-3)
    yield "", stack[0]
    for name, picture in zip(names, stack, strict=True):
        clean = np.asarray(denoiser.infer(picture[None])).reshape(picture.shape)
        yield name, eight_bit(np.moveaxis(clean, 0, -1))


EACH: dict[str, Callable[[np.ndarray, Settings], np.ndarray]] = {
    "opencv-nlm": opencv_nlm,
    "skimage-nlm": skimage_nlm,
    "skimage-wavelet": skimage_wavelet,
    "bm3d": bm3d,
    "bm3d-grey": bm3d_grey,
}
TRAINED: dict[str, Callable[[Pictures, Settings], Iterator[tuple[str, np.ndarray]]]] = {
    "careamics-n2v": careamics_n2v,
    "autoden-n2v": autoden_n2v,
}


def one_by_one(
    method: Callable[[np.ndarray, Settings], np.ndarray], pictures: Pictures, settings: Settings
) -> Iterator[tuple[str, np.ndarray]]:
    first = next(iter(pictures.values()))
    method(first[:64, :64], settings)  # imports and first calls are not timed
    yield "", first
    for name, picture in pictures.items():
        yield name, method(picture, settings)


def run(method: str, settings: Settings, pictures: Pictures, target: Path) -> None:
    """Write the results and times of one setting into a folder."""
    if method in EACH:
        results = one_by_one(EACH[method], pictures, settings)
    else:
        results = TRAINED[method](pictures, settings)
    target.mkdir()
    times: dict[str, float] = {}
    start = time.process_time()
    for name, clean in results:
        times[name or "training"] = time.process_time() - start
        if name:
            np.save(target / f"{name}.npy", clean)
        start = time.process_time()
    if method in EACH:
        del times["training"]
    (target / "times.json").write_text(json.dumps(times))


def main() -> None:
    method, text, source, target = sys.argv[1:]
    pictures = {path.stem: np.load(path) for path in sorted(Path(source).glob("*.npy"))}
    for place, settings in enumerate(json.loads(text)):
        run(method, settings, pictures, Path(target) / str(place))


if __name__ == "__main__":
    main()
