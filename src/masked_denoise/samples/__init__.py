"""Two small pictures with simulated camera noise, and the same pictures without it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..errors import ImageReadError, unknown_name

NOISY, CLEAN = "_noisy.jpg", "_clean.png"


def list_samples() -> list[str]:
    """Return the names that `sample_path` takes, sorted.

    >>> list_samples()
    ['lighthouse', 'parrot']
    """
    names = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(NOISY) for name in names if name.endswith(NOISY))


def sample_path(name: str = "lighthouse", *, clean: bool = False) -> Path:
    """Return the path of a sample: the noisy 8-bit JPEG, or with `clean` the noise-free PNG.

    Both are RGB and of one size, so that `clean` can serve to measure PSNR and SSIM.

    Raises `UnknownNameError` for a name that `list_samples` does not list, and `ImageReadError`
    where the package is not unpacked into files (run from a zip archive).

    >>> sample_path("lighthouse").name, sample_path("lighthouse", clean=True).name
    ('lighthouse_noisy.jpg', 'lighthouse_clean.png')
    """
    if name not in list_samples():
        raise unknown_name("sample", name, list_samples())
    path = Path(str(files(__name__) / f"{name}{CLEAN if clean else NOISY}"))
    if not path.is_file():
        raise ImageReadError(
            f"the sample '{path.name}' is not a file on this disk; install the package with "
            "pip, which unpacks it"
        )
    return path
