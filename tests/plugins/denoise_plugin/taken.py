"""A plug-in that wants the name of a built-in network."""

from torch import nn

from masked_denoise import register_backbone


@register_backbone("unet", license="MIT")
class OtherUNet(nn.Identity):
    """Not the U-Net."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
