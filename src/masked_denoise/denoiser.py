"""The denoiser: combines backbone, mask scheme, pixel downsampling and refinement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .backbones import backbone_info, create_backbone
from .backbones.spandrel_model import Backbone, unwrap
from .calls import CallCache, predict
from .checks import number, whole
from .denoiser_settings import UNIT, DenoiserSettings
from .errors import SettingError, SizeError
from .hashing import Key, Purpose, hash_key
from .inference import TILE, denoise_batch
from .losses import LossKind, target_loss, total_loss
from .memory import held_memory
from .modes import keeping_modes
from .ops import MaskedImage
from .ops.masked import DistanceKind
from .probe import Traits, probe, warn_unless_blind
from .refine import Refinement
from .scheme import MaskScheme, NothingHidden
from .scheme_trial import check_scheme
from .transfer import to_device
from .uncertainty import check_draws, deviation_of
from .values import (
    CountRange,
    ValueRange,
    channels_hint,
    check_finite,
    from_batch,
    to_batch,
    warn_of_empty_scale,
    warn_off_scale,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from .camera_noise import CameraNoise


class AsymmetricMaskDenoiser(DenoiserSettings):
    """Self-supervised denoiser around any network that keeps the shape of (B, C, H, W).

    Training hides pixels of the sub-images and lets the network predict them, one branch per step
    at a large stride (Eq. 4). Inference runs all branches at a small stride, takes every pixel
    from the branch that could not see it (Eq. 6-8), averages several mask draws, and refines.

    Args:
        backbone: a network, the name of a registered one (`list_backbones()`), "timm:" followed by
            the name of an encoder, or a model loaded by spandrel.
        channels: C of the images.
        scheme: which pixels are hidden and scored; default `RandomPartition(2)`.
        train_stride: S in training; if several are given, one is drawn for each step. Default 2.
        stride: S at inference. Default 1.
        passes: number of mask draws averaged by `denoise`. Default 4.
        refine: settings of R3; True for the paper's, False (the default) for no R3.
        residual: True: the network predicts a correction to the filled image, p = z + net(z);
            False: it predicts the image itself; "auto" (the default): True for mean fill with a
            backbone that has no global skip.
        observation: share of the pixel's own noisy value in the result, in [0, 1); of its luma
            where there are three channels. "measured": for each pixel and channel the share that
            the measured noise makes best (`observation.weighed`), for noise that is independent
            from pixel to pixel. Default 0.
        chroma_radius: radius in pixels of `smooth_chroma` after the network, for images of three
            channels; 0 switches it off. Default 8.
        dct_threshold: cosine coefficients of the result below this are set to zero, on the 0..1
            scale (`threshold_cosines`); 0 switches it off. Default 0.07, that is 18 of 255.
        turns: whether each pass, and each draw of R3, shows the network another of the eight flips
            and rotations (self-ensemble). Default True. Where inference hides no pixels, as for a
            student, passes always do: they would be equal otherwise.
        value_range: (low, high) of float images. Integers are scaled by their dtype, unless this is
            a `masked_denoise.values.CountRange(low, high)`: it holds for integers of more than 8
            bits, too. `fit` sets one for 12 bits stored in 16, for example.
        noise_level: for observation="measured": (slope, offset) of the line that gives the variance
            of the noise over the pixel value, where white is 1; one pair for all channels, or one
            for each. Default: measured by every `fit`. A level given here or set later is kept by
            this object; a loaded model measures it again when it is trained further.
        preset: a named recipe ("amsnet" is the paper's); arguments given here override it. Without
            one, the first `fit` measures the noise and decides all that is not given here: the
            preset "independent" where the noise is independent from pixel to pixel, else "default",
            with training stride 1 where it is nearly so, otherwise 3 for smooth images and 2 for
            sharp ones. Until then, and where the noise cannot be measured, "default" holds.
        backbone_args: arguments of a backbone given by name, for example {"widths": (16, 32, 64)}.
        channels_last: whether a backbone given by name accepts the channels-last memory layout;
            None (the default): found by a trial.

    Attributes:
        backbone: the network.
        history: log of `fit`, one dict per entry: step, loss, learning_rate, seconds,
            steps_per_second, and score (dB, higher is better) where it was validated.
        fit_record: settings and outcome of `fit`, stored with the weights.
        card: facts about the weights for the model card, stored with them: license, training_data,
            metrics, source; each only where known.

    Raises:
        BackboneError: the network does not keep the shape of its input.
        SettingError: an argument is out of range.
        UnknownNameError: no backbone or preset has that name.

    >>> denoiser = AsymmetricMaskDenoiser(nn.Conv2d(1, 1, 3, padding=1), channels=1)
    >>> denoiser.denoise(torch.rand(1, 30, 41)).shape
    torch.Size([1, 30, 41])
    """

    def __init__(
        self,
        backbone: Backbone | str = "fast-unet",
        *,
        channels: int = 3,
        scheme: MaskScheme | None = None,
        train_stride: int | Sequence[int] | None = None,
        stride: int | None = None,
        passes: int | None = None,
        refine: Refinement | bool | None = None,
        residual: bool | str | None = None,
        observation: float | str | None = None,
        chroma_radius: int | None = None,
        dct_threshold: float | None = None,
        turns: bool | None = None,
        value_range: ValueRange | None = None,
        noise_level: Sequence[Sequence[float]] | None = None,
        preset: str | None = None,
        backbone_args: dict[str, Any] | None = None,
        channels_last: bool | None = None,
    ) -> None:
        super().__init__()
        given = {
            "scheme": scheme, "train_stride": train_stride, "stride": stride, "passes": passes,
            "refine": refine, "residual": residual, "observation": observation,
            "chroma_radius": chroma_radius, "dct_threshold": dct_threshold, "turns": turns,
        }  # fmt: skip
        channels = whole("channels", channels)
        if channels < 1:
            raise SettingError(f"channels is {channels}; 1 or more is needed")
        self.given = {name: value for name, value in given.items() if value is not None}
        self.undecided = preset is None and len(self.given) < len(given)
        self.backbone_name = backbone if isinstance(backbone, str) else None
        self.backbone_args = dict(backbone_args or {})
        if isinstance(backbone, str):
            self.backbone: nn.Module = create_backbone(
                backbone, channels=channels, **self.backbone_args
            )
        elif self.backbone_args:
            raise SettingError("backbone_args need a backbone given by name, not a network")
        else:
            self.backbone = unwrap(backbone, channels)
        self.channels = channels
        self.value_range = value_range
        self.noise_level = noise_level
        self.preset = preset
        self.history: list[dict[str, Any]] = []
        self.fit_record: dict[str, Any] = {}
        self.card: dict[str, Any] = {}
        self.call_cache = CallCache()  # facts about calls of the network
        residual = self._take(preset or "default", {})
        self.traits = self.find_traits(channels_last)
        check_scheme(self.scheme)
        warn_unless_blind(self.scheme, self.backbone, channels, self.traits)
        self.residual = self._choose_residual(residual)
        self._remember()
        if self.traits.channels_last:
            self.backbone.to(memory_format=torch.channels_last)

    # -- training ---------------------------------------------------------------------------

    def forward(
        self,
        image: Tensor,
        *,
        step: int = 0,
        sample: Tensor | int = 0,
        seed: int = 0,
        purpose: int = Purpose.TRAIN,
        smoothness: float | None = None,
        loss: LossKind = "l1",
        target: Tensor | None = None,
    ) -> Tensor:
        """Return the training loss (a float32 scalar), or the denoised image in eval mode.

        Args:
            image: (B, C, H, W) float on the 0..1 scale. Training is cheapest where H and W are
                multiples of the stride times the backbone's size multiple.
            step: number of the training step; with `seed` it determines stride, mask and branch.
            sample: index of the first image of the batch, or int64 (B,), one index per image.
            seed: of the run.
            purpose: which random stream the masks come from (`Purpose`).
            smoothness: None for the mask loss of one branch (Eq. 4); a number is the lambda of the
                total loss over all branches (Eq. 10).
            loss: "l1" or "l2"; with a target also "psnr".
            target: (B, C, H, W), the desired output where it is known: the loss is then the
                distance to it of the network's output for the plain image. A student needs one.

        Raises:
            SizeError: the shape of the image cannot be used.
            SettingError: the loss is not one of these, or a student has no target.
        """
        if image.ndim != 4:
            raise SizeError(f"image has shape {tuple(image.shape)}; (B, C, H, W) is needed")
        self._check_channels(image, tuple(image.shape))
        if not self.training:
            return denoise_batch(self, image, passes=self.passes, seed=seed)
        if target is not None:
            return target_loss(self.predict(image), target, kind=loss)
        kind = self.check_masked_loss(loss)
        key = Key(seed, purpose, step)
        stride = self.stride_of_step(key)
        masked = MaskedImage(image, self.scheme, key, stride, sample=sample)
        branches = [self.scheme.branch_of_step(key)]
        if smoothness is not None:
            branches = list(range(self.scheme.branches))
        last = self.traits.channels_last and masked.fused
        outputs = [self.predict(masked.show(branch, channels_last=last)) for branch in branches]
        losses = [
            masked.distance(output, branch, kind=kind)
            for output, branch in zip(outputs, branches, strict=True)
        ]
        if smoothness is None:
            return losses[0]
        return total_loss(torch.stack(losses), masked.merge(outputs), smoothness=smoothness)

    def check_masked_loss(self, loss: str) -> DistanceKind:
        """Return the loss; raise SettingError where it cannot be learnt from noisy images alone."""
        if isinstance(self.scheme, NothingHidden) and not self.scheme.blind:
            raise SettingError(
                "this is a student: it sees every pixel, and would learn from noisy images to copy "
                "them; train it with teacher.distill(noisy, student=...), or with train_student on "
                "pairs"
            )
        if loss == "psnr":
            raise SettingError("loss='psnr' compares with a target; without one take 'l1' or 'l2'")
        if loss not in ("l1", "l2"):
            raise SettingError(f"loss is {loss!r}; 'l1' or 'l2' is needed")
        return "l2" if loss == "l2" else "l1"

    def stride_of_step(self, key: Key) -> int:
        """Return the stride of training step `key.draw`, drawn from the hash of the step."""
        drawn = hash_key(Key(key.seed, Purpose.STRIDE, key.draw)) % len(self.train_strides)
        return int(self.train_strides[drawn])

    def fit(
        self,
        data: object,
        *,
        steps: int | None = None,
        epochs: float | None = None,
        minutes: float | None = None,
        batch_size: int | None = None,
        crop: int | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        betas: tuple[float, float] | None = None,
        weight_decay: float | None = None,
        warmup_steps: int | None = None,
        ema_decay: float | None = None,
        clip_norm: float | None = None,
        loss: LossKind | None = None,
        smooth_steps: float | None = None,
        smoothness: float | None = None,
        augment: bool | None = None,
        accumulate: int | None = None,
        mixed_precision: str | None = None,
        compile: bool | None = None,
        keep: str | None = None,
        patience: int | None = None,
        seed: int | None = None,
        validation: Any = None,
        validate_every: int | None = None,
        output: str | Path | None = None,
        save_every: int | None = None,
        resume: bool | str | Path = False,
        progress: bool = True,
        log_with: Any = None,
        device: str | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
    ) -> Self:
        """Train on noisy images alone, and return the denoiser itself, ready to denoise.

        Afterwards the backbone holds the averaged weights, on the device it was trained on, in
        evaluation mode. Arguments that are not given come from the preset, else from the defaults
        named here. Ctrl-C ends training after the current step and keeps the model; `fit` then
        returns as usual. A run is a function of its arguments, the data and the initial weights:
        if it is stopped at any step and resumed, it ends with the same weights, bit for bit, on a
        CPU with the same number of threads and a budget in steps or epochs.

        Args:
            data: noisy images, in any of these forms: a folder (searched recursively), a file, a
                list of paths; an array (H, W), (H, W, C) or (N, H, W, C); a tensor (C, H, W) or
                (N, C, H, W); a list of arrays or tensors of any sizes; a data set of such items;
                a DataLoader or any iterable of batches (B, C, H, W), each a tensor, a tuple whose
                first tensor is the image, or a dict with the key "image", "noisy" or "input".
                Integers are scaled by their dtype. If floats lie outside [0, 1] or use next to
                nothing of it, or if no integer of more than 8 bits exceeds 0.3 of its scale, the
                range is measured once and kept as `value_range`. Batches of a loader are used as
                they come; to resume a run, they are read again up to where it stopped.
            steps: budget in steps of the optimizer.
            epochs: budget in passes over the data: as many crops as cover their area, or all
                batches of a loader.
            minutes: budget in time, without validation and the writing of checkpoints; it becomes
                a number of steps once the speed has been measured. Default 2. At most one of the
                three budgets may be given.
            batch_size: crops per step and process. Default 2, which trains best in minutes on a
                CPU; use more where a GPU would be idle.
            crop: longest side of the crops, in pixels. Default 128.
            optimizer: "adamw", or "muon", whose steps are as long in rare directions as in common
                ones (`training.muon`). Default "auto": Muon where its matrix products add at most a
                quarter to the other work of a step, as in all small networks, else AdamW; "adamw"
                under the presets of the paper.
            learning_rate: peak rate; in each stage it rises linearly, then falls to zero by half a
                cosine. Default 1e-3. Under the preset "default", with Muon and a training stride
                above 1, it is lower in proportion in runs of more than 3,000 steps, which would
                otherwise learn to predict the correlated noise, too.
            betas: of AdamW. Default (0.9, 0.99).
            weight_decay: decoupled. Default 0.
            warmup_steps: steps over which the learning rate rises. Default 50.
            ema_decay: decay of the averaged weights; 0 switches averaging off. Default 0.998.
            clip_norm: largest norm of the gradient; 0 switches clipping off. Default 1.
            loss: "l1" (the default) or "l2".
            smooth_steps: length of the final stage P, which trains all branches with the
                smoothness loss (Eq. 10): a share of the budget in [0, 1), or a number of steps.
                Default 0: stage B (Eq. 4) only.
            smoothness: lambda of stage P. Default 0.01.
            augment: flip and transpose crops at random. Default True.
            accumulate: number of batches whose gradients are averaged for one step. Default 1.
            mixed_precision: "no", "bf16" or "fp16". Default "auto": bf16 on CPUs and
                NVIDIA GPUs with bf16 arithmetic, for the built-in networks except "dncnn" and
                "dbsn": up to twice as many steps in the same time. Elsewhere, and under the presets
                of the paper, "no".
            compile: compile the network with `torch.compile`, which takes a minute or so at the
                start. If that fails, a warning gives the reason, and training continues without it.
                Default False.
            keep: "last", "best" (by the validation score), or "auto" (the default): "best" where
                there are clean pictures or training was stopped because the score fell.
            patience: stop after this many scores in a row that are more than 0.05 dB below the
                best, but not before half the budget is spent. Default 5.
            seed: of crops, masks and dropout. Default 0.
            validation: pairs (noisy, clean) of pictures, or a pair of folders: scored by PSNR.
                None: scored by the mask loss under fixed masks, on held-out pictures where there
                are 25 or more, else on crops of the training pictures. False: no validation.
            validate_every: steps between scores; default: 10 scores per run with clean pictures,
                else 20.
            output: folder for `last.pt` and `best.pt` (to resume, or for `from_pretrained`), and
                at the end for the model as `save_pretrained` writes it.
            save_every: steps between checkpoints; default: about one minute.
            resume: True continues from `last.pt` in `output`, or starts anew if there is none; or
                the path of a checkpoint. All settings above `validation` must be the same.
            progress: show a bar with loss, speed and remaining time.
            log_with: trackers of accelerate, for example "tensorboard".
            device: "cpu" to train there in spite of a GPU; default: the device that accelerate
                chooses.
            callback: called with every new entry of `history`; may raise KeyboardInterrupt.

        Raises:
            SettingError: an argument is out of range, or more than one budget is given.
            DataError, SizeError, PixelError, ImageReadError: the data cannot be used.
            TrainingError: the loss is no longer finite; the last good weights are restored.
            CheckpointError: a checkpoint cannot be written or resumed.

        >>> denoiser = AsymmetricMaskDenoiser(nn.Conv2d(1, 1, 3, padding=1), channels=1)
        >>> denoiser.fit(np.random.rand(64, 64), steps=2, progress=False).history[-1]["step"]
        2
        """
        from .training.loop import fit
        from .training.settings import FitOptions

        given = {
            "steps": steps, "epochs": epochs, "minutes": minutes, "batch_size": batch_size,
            "crop": crop, "optimizer": optimizer, "learning_rate": learning_rate,
            "betas": betas,
            "weight_decay": weight_decay, "warmup_steps": warmup_steps, "ema_decay": ema_decay,
            "clip_norm": clip_norm, "loss": loss, "smooth_steps": smooth_steps,
            "smoothness": smoothness, "augment": augment, "accumulate": accumulate,
            "mixed_precision": mixed_precision, "compile": compile, "keep": keep,
            "patience": patience, "seed": seed,
        }  # fmt: skip
        options = FitOptions(
            validation=validation, validate_every=validate_every, output=output,
            save_every=save_every, resume=resume, progress=progress, log_with=log_with,
            device=device, callback=callback,
        )  # fmt: skip
        fit(self, data, given, options)
        return self

    def distill(
        self,
        noisy: object,
        *,
        student: AsymmetricMaskDenoiser | nn.Module | str = "fast-student",
        student_args: dict[str, Any] | None = None,
        minutes: float | None = None,
        steps: int | None = None,
        passes: int | None = None,
        trust: float = 1.0,
        rounds: int = 1,
        megapixels: float = 32.0,
        **settings: Any,
    ) -> AsymmetricMaskDenoiser:
        """Return a student: a plain network, taught by this denoiser, that needs one pass only.

        This denoiser, the teacher, denoises the noisy images once, with all of its steps: passes,
        turns, refinement, chroma, observation. The student then learns to map the noisy images,
        with no pixel hidden, to these results. It is a denoiser like any other, with stride 1, one
        pass and its teacher's `dct_threshold`, and is saved, loaded, published and used as such.

        Args:
            noisy: noisy images, in any of the forms that `fit` accepts. From a loader or an
                iterable, only as many batches are read as are needed.
            student: the name of a backbone, a network, or a student to train further (in place).
            student_args: arguments of a backbone given by name, for example {"widths": (32, 64)}.
            minutes, steps: budget for training the student; the teacher's time is not included.
                Default 2 minutes.
            passes: number of mask draws that the teacher averages; default: its own `passes`.
            trust: share of the teacher in the targets, above 0 and at most 1. The rest is the
                student's own result, averaged over four orientations; the student should be a
                trained one then.
            rounds: number of parts with equal budgets, each with its own learning-rate cycle.
                Before every part but the first, the targets are moved half-way to the student's
                own result, averaged over eight orientations.
            megapixels: how many million pixels the teacher denoises. From larger sets, windows of
                512 x 512 pixels are taken, spread evenly over the pictures. Noisy pixels and
                targets are kept in memory, 12 bytes per pixel in colour (24 for floats).
            settings: other arguments of `fit`: epochs, batch_size, crop, optimizer, learning_rate,
                betas, weight_decay, warmup_steps, ema_decay, clip_norm, loss (distance to the
                target: "psnr", the default, under which quiet images count as much as noisy ones,
                "l1" or "l2"), augment, accumulate, mixed_precision, compile, keep, patience,
                seed, validation, validate_every, output, save_every, resume, progress, log_with,
                device, callback. Without `validation` the score is the PSNR against the teacher.

        Raises:
            SettingError, UnknownNameError: an argument is out of range or not known.
            DataError, SizeError, PixelError, ImageReadError: the images cannot be used.
            TrainingError, CheckpointError: as for `fit`.

        >>> teacher = AsymmetricMaskDenoiser(nn.Conv2d(1, 1, 3, padding=1), channels=1)
        >>> student = teacher.distill(np.random.rand(64, 64), steps=2, progress=False)
        >>> student.passes, student.denoise(torch.rand(1, 30, 41)).shape
        (1, torch.Size([1, 30, 41]))
        """
        from .training.distill import distill

        return distill(
            self, noisy, student=student, student_args=student_args, minutes=minutes, steps=steps,
            passes=passes, trust=trust, rounds=rounds, megapixels=megapixels, **settings,
        )  # fmt: skip

    def adapt(
        self,
        noisy: object,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        trust: float = 0.3,
        megapixels: float = 8.0,
        **settings: Any,
    ) -> Self:
        """Train a student, such as `from_pretrained("camera-small")`, further on noisy images.

        The first half of the budget fits a masked network on the images (`fit` without a preset):
        it knows these pictures, while the student knows the noise. In the second half the student
        learns to map the images to the weighted mean of both results (`distill`). Its weights
        become 0.35 times the old ones plus 0.65 times the new ones. On photographs whose noise the
        student already knows, this changes nothing. If the new weights fail to denoise simulated
        noise on such images (`rank_models`) and the old ones do not, the old ones are restored;
        `fit_record["adaptation"]` records which were kept.

        Args:
            noisy: noisy images, in any of the forms that `fit` accepts.
            minutes, steps: budget of both trainings together; denoising the images with both
                networks is not included (about ten seconds per megapixel on two cores). Default 2
                minutes.
            trust: share of the masked network in the targets, above 0 and at most 1.
            megapixels: how many million pixels are denoised for the targets. From larger sets,
                windows of 512 x 512 pixels are taken, spread evenly over the pictures.
            settings: other arguments of `fit`, as for `distill`. They apply to the student; seed,
                progress and device apply to both networks. Default optimizer "auto" at 5e-4.

        Raises:
            SettingError, UnknownNameError: an argument is out of range or not known, or the
                denoiser is no student.
            DataError, SizeError, PixelError, ImageReadError: the images cannot be used.
            TrainingError, CheckpointError: as for `fit`.

        >>> student = AsymmetricMaskDenoiser(nn.Conv2d(1, 1, 3, padding=1), channels=1,
        ...     preset="student")
        >>> student.adapt(np.random.rand(64, 64), steps=4, progress=False).fit_record["steps"]
        2
        """
        from .training.adapt import adapt

        adapt(
            self, noisy, minutes=minutes, steps=steps, trust=trust, megapixels=megapixels,
            **settings,
        )  # fmt: skip
        return self

    def learn_noise(
        self,
        noisy: object,
        *,
        minutes: float | None = None,
        steps: int | None = None,
        noise: CameraNoise | None = None,
        shrink: float = 2.0,
        rounds: int = 1,
        megapixels: float = 24.0,
        **settings: Any,
    ) -> Self:
        """Train a student on noisy images alone, by simulated camera noise, and return it.

        This is for new students, `AsymmetricMaskDenoiser("fast-student", preset="student")`; one
        that already knows camera noise gains nothing, see `adapt`. The student denoises the images
        as well as it can so far; scaling them down reduces the noise further. On these images
        correlated noise like that of cameras is simulated, and the student learns to remove it. If
        the new weights score worse on simulated noise than the old ones, the old ones are restored;
        `fit_record["score"]` has both scores, in dB.

        Args:
            noisy: noisy images, in any of the forms that `fit` accepts.
            minutes, steps: training budget; measuring and denoising the images first is not
                included (about a second per megapixel on two cores). Default 2 minutes.
            noise: the noise to simulate, for one or three channels; default: `CameraNoise()`, a
                wide range of cameras, extended to stronger noise where the images have it.
            shrink: factor by which the images are scaled down, 1 or more.
            rounds: number of parts with equal budgets; before each the images are denoised again.
                A second one pays from about eight minutes on.
            megapixels: how many million pixels to use. From larger sets, windows of 512 x 512
                pixels are taken, spread evenly over the pictures.
            settings: other arguments of `fit`, as for `distill`, except epochs: crops are drawn
                without end. Default optimizer "auto", learning rate 1e-3, for a new student 2e-3.

        Raises:
            SettingError, UnknownNameError: an argument is out of range or not known, or the
                denoiser is no student.
            DataError, SizeError, PixelError, ImageReadError: the images cannot be used.
            TrainingError, CheckpointError: as for `fit`.

        >>> student = AsymmetricMaskDenoiser(nn.Conv2d(1, 1, 3, padding=1), channels=1,
        ...     preset="student")
        >>> student = student.learn_noise(np.random.rand(64, 64), steps=2, progress=False)
        >>> sorted(student.fit_record["score"])
        ['after', 'before']
        """
        from .training.learn_noise import learn_noise

        learn_noise(
            self, noisy, minutes=minutes, steps=steps, noise=noise, shrink=shrink, rounds=rounds,
            megapixels=megapixels, **settings,
        )  # fmt: skip
        return self

    # -- on disk ------------------------------------------------------------------------------

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        license: str | None = None,
        training_data: str | None = None,
        metrics: dict[str, Any] | None = None,
        card: bool = True,
        before_after: Any = None,
    ) -> Path:
        """Write `config.json`, `model.safetensors` and `README.md` into a folder, and return it.

        License, training data and metrics are kept in `self.card`, and loaded with the weights.

        Args:
            folder: created if missing; a model in it is replaced.
            license: of the weights, for example "apache-2.0" or "cc-by-nc-4.0".
            training_data: what the weights were trained on, in one sentence.
            metrics: measured numbers: {"SIDD validation": {"PSNR": 37.93, "SSIM": 0.895}}.
            card: write the model card, README.md. A card that was edited by hand is not changed.
            before_after: a noisy picture that the model card shows before and after denoising: one
                picture as an array or tensor that `denoise` accepts.

        Raises:
            WeightsError: a setting is of a type that JSON cannot hold; the message names it.
            CheckpointError: a file cannot be written; an older file is not changed.
        """
        from .checkpoint import save_model
        from .pretrained.card import tell, write_card

        tell(self, license=license, training_data=training_data, metrics=metrics)
        save_model(self, folder)
        if card:
            write_card(self, Path(folder), before_after=before_after)
        return Path(folder)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload a denoiser",
        create_pr: bool = False,
        license: str | None = None,
        training_data: str | None = None,
        metrics: dict[str, Any] | None = None,
        before_after: Any = None,
    ) -> str:
        """Save the model to a repository of the Hugging Face Hub, and return the commit's URL.

        Args:
            repository: "owner/name"; created if missing.
            private: whether a new repository is private; default: the owner's setting.
            token: with write access; default: that of `hf auth login`.
            revision: branch to push to; default: the main one.
            commit_message: first line of the commit message.
            create_pr: open a pull request instead of changing the branch.
            license, training_data, metrics, before_after: as for `save_pretrained`. A README.md
                in the repository that was edited by hand is not changed.

        Raises:
            WeightsError: a setting cannot be stored, or the Hub refused; the message says why.
        """
        from .pretrained.card import tell
        from .pretrained.hub import push

        tell(self, license=license, training_data=training_data, metrics=metrics)
        return push(
            self, repository, private=private, token=token, revision=revision,
            commit_message=commit_message, create_pr=create_pr, before_after=before_after,
        )  # fmt: skip

    @classmethod
    def from_pretrained(
        cls,
        name_or_repo_or_folder: str | Path,
        *,
        backbone: nn.Module | None = None,
        scheme: MaskScheme | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        subfolder: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> AsymmetricMaskDenoiser:
        """Return a denoiser that was saved or published, ready to denoise.

        Args:
            name_or_repo_or_folder: a folder written by `save_pretrained` or `fit(output=...)`, or
                the checkpoint `last.pt` or `best.pt` of a run; the name of a pretrained model, for
                example "amsnet-restormer-sidd"; or a repository of the Hugging Face Hub as
                "owner/name". A revision may follow: "owner/name@v1.0". An existing file or folder
                takes precedence over a repository; the prefixes in "local-dir:mine" and
                "hf-hub:owner/name" remove the ambiguity.
            backbone: the network, if the model has one of your own; its weights are replaced.
            scheme: the mask scheme, if its class is your own.
            revision: branch, tag or commit on the Hub; a full commit hash pins the model.
            cache_dir: folder for downloads; default: the cache of `huggingface_hub`.
            token: for private repositories; default: that of `hf auth login`.
            local_files_only: use the cache only, without any connection.
            force_download: download even what is in the cache.
            subfolder: of the repository or folder, with the model in it.
            device: of the network; default: the CPU.
            dtype: floating-point type of the weights; default: that of the network, mostly float32.

        Raises:
            WeightsError: the model cannot be found or downloaded, or a part of it is damaged,
                unknown, or does not fit the others.
            CheckpointError: a training checkpoint cannot be read.
            SettingError: two arguments contradict each other, or the device is not available.
        """
        from .checkpoint import load_model
        from .pretrained.place import check_target, find_place

        check_target(device, dtype)
        place = find_place(
            name_or_repo_or_folder, revision=revision, subfolder=subfolder,
            local_files_only=local_files_only, force_download=force_download,
        )  # fmt: skip
        path = place.folder
        if path is None:
            from .pretrained.hub import fetch

            path = fetch(
                place, cache_dir=cache_dir, token=token, local_files_only=local_files_only,
                force_download=force_download,
            )  # fmt: skip
        denoiser = load_model(path, backbone=backbone, scheme=scheme, sha256=place.sha256)
        return denoiser if device is None and dtype is None else denoiser.to(device, dtype)

    # -- inference --------------------------------------------------------------------------

    def denoise(
        self,
        image: Tensor | NDArray[np.generic],
        *,
        passes: int | None = None,
        seed: int = 0,
        strength: float = 1.0,
        nan: str = "error",
        tile: int = TILE,
        precision: str = "auto",
        compile: bool = False,
        return_std: bool = False,
    ) -> Any:
        """Return the denoised picture, in the type, shape, dtype, device and range of the input.

        With `return_std` a pair (picture, std) is returned. std has the type, shape and unit of the
        picture, as float32: for each pixel and channel the standard deviation of one draw,
        estimated from the P passes (sum of squares over P - 1). A pass takes each pixel from the
        branch that could not see it, mixed with the observation and `strength` as in the picture.
        R3, chroma smoothing and the cosine threshold follow the passes and are not included. If
        draws were independent, their mean would have a random error of std / sqrt(P). Errors that
        all draws share, such as correlated noise, are not included: see the calibration in the
        guide before reading std as an error.

        Args:
            image: tensor (C, H, W) or (B, C, H, W), or array (H, W) or (H, W, C); uint8, uint16,
                int16, uint32 or int32, on the scale of their dtype, or floats (on the 0..1 scale
                unless the denoiser has a `value_range`). Sides must be at least the stride.
                Integers are returned rounded and clipped to their dtype, floats unclipped.
            passes: number of mask draws to average; default: that of the denoiser. For a student,
                which has no masks: number of orientations of the image, of which there are 8.
            seed: of the masks; the same seed gives the same picture.
            strength: 1 for the full effect, 0 for the noisy image itself.
            nan: "error", or "mask" to have NaN and infinite pixels predicted from the others.
            tile: images with longer sides are denoised in tiles of this side, to bound memory.
            precision: "float32", "bf16" or "fp16" for the network; "auto" (the default) is bf16 on
                GPUs with bf16 arithmetic, and float32 elsewhere. On a GPU, PyTorch's own switch
                (`torch.backends.cudnn.allow_tf32`) decides whether "float32" may use TF32.
            compile: compile the network with `torch.compile`, once; it pays for many pictures of
                few sizes. If that fails, a warning gives the reason, and the network runs
                uncompiled.
            return_std: also return the standard deviation of one pass; 2 passes or more are needed.

        Raises:
            SizeError: wrong number of channels, or a side shorter than the stride.
            PixelError: NaN or infinite pixels, or a dtype that is not supported.
            SettingError: an argument is out of range, or `return_std` is requested of passes that
                cannot differ.
        """
        self._check_settings()  # the user may have changed some
        passes = self.passes if passes is None else whole("passes", passes)
        if passes < 1:
            raise SettingError(f"passes is {passes}; 1 or more is needed")
        if return_std:
            check_draws(self, passes)
        seed, strength = whole("seed", seed), number("strength", strength, UNIT)
        if not 0 <= strength <= 1:
            raise SettingError(f"strength is {strength}; {UNIT} is needed")
        if nan not in ("error", "mask"):
            raise SettingError(f"nan is {nan!r}; 'error' or 'mask' is needed")
        batch, form = to_batch(image, value_range=self.value_range)
        self._check_channels(batch, tuple(image.shape), is_array=form.is_array)
        bad = None
        if nan == "mask":
            bad = ~torch.isfinite(batch).all(1, keepdim=True)
            batch = torch.where(bad, 0.0, batch)
        elif form.is_float:
            check_finite(batch)
        if form.is_float and self.value_range is None:
            warn_off_scale(batch)
        elif "procedure" in self.fit_record or not isinstance(self.value_range, CountRange | None):
            warn_of_empty_scale(batch, form)  # the model of the package, or one fitted on floats
        if strength == 0 and bad is None and not return_std:
            return image.detach().clone() if isinstance(image, Tensor) else np.array(image)
        device = next(self.backbone.parameters(), batch).device
        with keeping_modes(self), held_memory(give_back=False):
            self.eval()
            result = denoise_batch(
                self, to_device(batch, device), passes=passes, seed=seed, tile=tile,
                bad=None if bad is None else bad.to(device), strength=strength,
                precision=precision, compile=compile, spread=return_std,
            )  # fmt: skip
            if return_std:
                result, std = result.chunk(2, dim=1)
                return from_batch(result, form), deviation_of(std, form)
            return from_batch(result, form)

    @property
    def device(self) -> torch.device:
        """The device of the network; the CPU for a network without weights."""
        return next(self.backbone.parameters(), torch.empty(0)).device

    # -- the network ------------------------------------------------------------------------

    def predict(self, filled: Tensor) -> Tensor:
        """Return the prediction for a filled image of any size: the network's, or z + net(z).

        Args:
            filled: (N, C, h, w) float; padded here to the network's size multiple.
        """
        return predict(self, [(filled, 0)], self.backbone)[0]

    def find_traits(self, channels_last: bool | None) -> Traits:
        """Return the traits of the backbone: registered ones where known, the others by a trial.

        Args:
            channels_last: whether the backbone accepts that layout, where known.
        """
        if self.backbone_name is None:
            return probe(self.backbone, self.channels)
        info = backbone_info(self.backbone_name, **self.backbone_args)
        multiple, skip = info.size_multiple, info.global_skip
        if multiple is not None and skip is not None and channels_last is not None:
            return Traits(multiple, skip, channels_last, info.blind)
        found = probe(self.backbone, self.channels, size_multiple=multiple)
        return Traits(
            found.size_multiple,
            found.global_skip if skip is None else skip,
            found.channels_last if channels_last is None else channels_last,
            info.blind,
        )

    def _check_channels(
        self, batch: Tensor, came: tuple[int, ...], *, is_array: bool = False
    ) -> None:
        if batch.shape[1] != self.channels:
            way = channels_hint(came, self.channels, is_array=is_array) or (
                f"; make one with AsymmetricMaskDenoiser(..., channels={batch.shape[1]}) or "
                "convert the picture"
            )
            raise SizeError(
                f"picture {came} has {batch.shape[1]} channels, the denoiser takes "
                f"{self.channels}{way}"
            )


from_pretrained = AsymmetricMaskDenoiser.from_pretrained
