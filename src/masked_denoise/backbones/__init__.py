"""Backbones by name: the built-in networks, and the registry that others can add to."""

from .registry import (
    BackboneInfo,
    backbone_info,
    create_backbone,
    list_backbones,
    register_backbone,
)

__all__ = [
    "BackboneInfo",
    "backbone_info",
    "create_backbone",
    "list_backbones",
    "register_backbone",
]
