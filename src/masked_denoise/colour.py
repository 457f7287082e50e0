"""Weights of luma and colour differences for red, green and blue."""

from __future__ import annotations

YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Luma and the two colour differences as JPEG stores them (ITU-R BT.601), one per row."""
LUMA = YCBCR[0]
