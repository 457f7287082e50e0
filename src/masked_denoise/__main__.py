"""`python -m masked_denoise` is the command `masked-denoise`."""

from .cli import main

if __name__ == "__main__":
    main()
