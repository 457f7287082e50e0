"""The report of a noise measurement: numbers, text and a plot."""

from __future__ import annotations

import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atomic import write_whole
from .errors import ImageWriteError, MissingExtraError
from .values import ValueRange

LAGS = 16
NEGLIGIBLE_SIGMA = 0.5 / 255
"""Half a step of 8 bits: below it there is hardly any noise to remove."""
_COLOUR = {"R": "#d62728", "G": "#2ca02c", "B": "#1f77b4", "Cb": "#6a5acd", "Cr": "#e07b39"}
_DARK = "#222222"
_SHOWN_FIT_ERROR = 0.15


@dataclass(frozen=True)
class ChannelNoise:
    """The noise of one channel; levels are on the scale where white is 1.

    Attributes:
        name: "R", "G", "B", "Y", "Cb" or "Cr" for colour, "grey" for one channel, else "1", "2",
            ... and "mean".
        sigma: root mean square of the noise, averaged over the brightness of the images.
        intensity: intensities at which the noise was measured: luma for Y, Cb and Cr (the mean for
            "mean"), otherwise the channel's own value.
        intensity_sigma: standard deviation of the noise at each of these intensities.
        slope: a of the Poisson-Gaussian fit, variance = a · intensity + b, with a, b >= 0.
        offset: b of the fit.
        fit_error: root mean square of the relative error of the fitted sigma. Raw data reach 0.05;
            photographs often exceed 0.2, since a tone curve has changed their noise.
        correlation: at distances of 1, 2, ... 16 pixels, mean of horizontal and vertical.
    """

    name: str
    sigma: float
    intensity: tuple[float, ...]
    intensity_sigma: tuple[float, ...]
    slope: float
    offset: float
    fit_error: float
    correlation: tuple[float, ...]

    def fitted_sigma(self, intensity: NDArray[Any] | float) -> NDArray[np.float64]:
        """Return sqrt(a · intensity + b) for intensities of any shape."""
        return np.sqrt(self.slope * np.asarray(intensity, np.float64) + self.offset)


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Advice on training and inference, given the noise of the images.

    Attributes:
        negligible: whether there is hardly any noise to remove: sigma is below 0.5 of 255 in every
            channel, where 255 stands for the brightest value if integers of more than 8 bits leave
            most of their scale empty.
        independent: whether the noise is not negligible, and nearly independent from pixel to
            pixel: in every channel, or as judged by its colour differences.
        reach: smallest distance in pixels, 1 to 5, at which correlation is below the limit; of
            luma, or of the noisiest channel where luma has hardly any noise.
        train_stride: advised stride in training, which `fit` uses unless one is given.
        stride: advised stride at inference.
        advice: the reasons, in a sentence or two.
    """

    negligible: bool = False
    independent: bool
    reach: int = 1
    train_stride: int = 1
    stride: int = 1
    advice: str


@dataclass(frozen=True, kw_only=True)
class NoiseReport(Advice):
    """The result of `measure_noise`, measurements and advice; `print(report)` shows it as text.

    Attributes:
        channels: one entry per channel, then the mixtures (luma and chroma for colour).
        images: number of images measured.
        patches: number of flat half patches measured.
        value_range: (black, white) as given to `measure_noise`; else (0, 1), or the lowest and
            highest value of float images that are far outside of it.
        sharpness: median sharpness of the noisy images at the pixel level. Below 0.5 they count as
            smooth, as photographs are.
    """

    channels: tuple[ChannelNoise, ...]
    images: int
    patches: int
    value_range: ValueRange
    sharpness: float

    def __getitem__(self, name: str) -> ChannelNoise:
        """Return the channel of that name; KeyError lists the channels of the report."""
        for channel in self.channels:
            if channel.name == name:
                return channel
        raise KeyError(f"no channel {name!r}; there are {[c.name for c in self.channels]}")

    @property
    def luma(self) -> ChannelNoise:
        """The channel that is brightness: "Y", "grey" or "mean"."""
        return self[main_channel([channel.name for channel in self.channels])]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, lists and strings, ready for JSON."""
        plain = asdict(self)
        for channel in plain["channels"]:
            for key, value in channel.items():
                channel[key] = list(value) if isinstance(value, tuple) else value
        plain["channels"], plain["value_range"] = list(plain["channels"]), [*self.value_range]
        return plain

    def summary(self) -> str:
        """Return a table of the noise level and correlation of each channel, and the advice."""
        shown = (1, 2, 3, 4, 5, 8, 16)
        lines = [
            f"{self.images} image{'s' * (self.images != 1)}, {self.patches} flat half patches",
            "",
            "          noise (sigma)     variance = a * intensity + b   correlation at distance",
            "channel   0..1   of 255         a         b  off by "
            + "".join(map("{:6}".format, shown)),
        ]
        for c in self.channels:
            fit = f"{c.slope:9.2e} {c.offset:9.2e} {min(c.fit_error, 9.99):6.0%}"
            lags = "".join(f"{c.correlation[d - 1]:6.2f}" for d in shown)
            lines.append(f"{c.name:7} {c.sigma:7.4f} {255 * c.sigma:7.2f}   {fit}  {lags}")
        return "\n".join([*lines, "", self.advice])

    def __str__(self) -> str:
        return self.summary()


def plot_noise(report: NoiseReport, path: str | os.PathLike[str]) -> Path:
    """Write a plot of the report and return its path; the suffix selects PNG, SVG or PDF.

    Left: sigma over intensity, measured and fitted. Right: correlation over distance, with the
    advised strides.

    Raises:
        MissingExtraError: Matplotlib is not installed.
        ImageWriteError: the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    level, correlation = figure.subplots(1, 2)
    _draw_level(level, report)
    _draw_correlation(correlation, report)
    path, data = Path(path), io.BytesIO()
    try:
        figure.savefig(data, dpi=150, format=path.suffix[1:] or "png")
        write_whole(path, data.getbuffer())
    except (OSError, ValueError) as error:
        raise ImageWriteError(
            f"the plot cannot be written to {os.fspath(path)}: {error}; choose a folder that "
            "can be written and a name ending in .png, .svg or .pdf"
        ) from error
    return path


def _draw_level(axes: Any, report: NoiseReport) -> None:
    """Draw sigma over intensity: the measurements, and the fit where its error is small."""
    from matplotlib.lines import Line2D

    shown = [channel for channel in report.channels if channel.name not in ("Cb", "Cr")]
    fits = [channel for channel in shown if channel.fit_error < _SHOWN_FIT_ERROR]
    for channel in shown:
        colour = _COLOUR.get(channel.name, _DARK)
        measured = channel.intensity, channel.intensity_sigma
        axes.plot(*measured, "o-", ms=4, lw=0.8, alpha=0.75, color=colour, label=channel.name)
    for channel in fits:
        x = np.linspace(min(channel.intensity), max(channel.intensity), 100)
        colour = _COLOUR.get(channel.name, _DARK)
        axes.plot(x, channel.fitted_sigma(x), "--", lw=1.8, color=colour)
    handles = axes.get_legend_handles_labels()[0]
    if fits:
        handles.append(Line2D([], [], ls="--", color="grey", label=r"fit $\sqrt{a\,I+b}$"))
    top = max(max(channel.intensity_sigma) for channel in shown)
    axes.set(xlabel="intensity (white = 1)", ylabel="noise sigma (white = 1)", title="Noise level")
    axes.set(xlim=(0, max(1.0, *axes.get_xlim())), ylim=(0, 1.3 * top or 1 / 255))
    axes.secondary_yaxis("right", functions=(_to_eight_bit, _from_eight_bit)).set_ylabel("of 255")
    axes.grid(alpha=0.25)
    axes.legend(handles=handles, frameon=False, ncols=len(handles), loc="upper center")


def _to_eight_bit(sigma: Any) -> Any:
    return 255 * sigma


def _from_eight_bit(sigma: Any) -> Any:
    return sigma / 255


def _draw_correlation(axes: Any, report: NoiseReport) -> None:
    """Draw correlation over distance, and mark the advised strides."""
    for channel in report.channels:
        main, chroma = channel.name == report.luma.name, channel.name in ("Cb", "Cr")
        axes.plot(
            range(LAGS + 1),
            (1.0, *channel.correlation),
            marker="o" if main else None,
            ms=4,
            lw=2 if main else 1.2,
            ls="--" if chroma else "-",
            alpha=1 if main or chroma else 0.6,
            color=_COLOUR.get(channel.name, _DARK if main else "#888888"),
            label=channel.name,
        )
    axes.axhline(0, color="grey", lw=0.8)
    train, stride = report.train_stride, report.stride
    axes.axvline(train, color="#b8860b", lw=1.5, ls=":", label=f"train at stride {train}")
    axes.axvline(stride, color="#00838f", lw=1.5, ls="-.", label=f"denoise at stride {stride}")
    axes.set(xlim=(0, LAGS), xlabel="distance in pixels", ylabel="correlation of the noise")
    axes.set(title="Spatial correlation", ylim=(min(-0.1, axes.get_ylim()[0]), 1.03))
    axes.grid(alpha=0.25)
    axes.legend(ncols=1 if len(report.channels) == 1 else 2, framealpha=0.9, edgecolor="none")


def main_channel(names: list[str]) -> str:
    """Return the name of the channel that is brightness."""
    return next(name for name in ("Y", "mean", "grey") if name in names)
