"""Make docs/images/before_after.jpg of what the demo leaves.

Type first

    masked-denoise demo -o demo
    python docs/figures/before_after.py demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

TARGET = Path(__file__).parents[1] / "images" / "before_after.jpg"


def main() -> None:
    """Convert the picture: as PNG it would be a megabyte and more."""
    demo = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo")
    with Image.open(demo / "before_after.png") as picture:
        picture.save(TARGET, quality=88, subsampling=0, optimize=True)
    print(f"wrote {TARGET}, {TARGET.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
