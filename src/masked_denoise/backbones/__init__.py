"""Backbones by name: the built-in networks, and a registry for others."""

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
