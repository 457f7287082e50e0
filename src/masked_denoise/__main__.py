"""Run the command `masked-denoise` as `python -m masked_denoise`."""

from .cli import main

if __name__ == "__main__":
    main()
