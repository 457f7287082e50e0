"""What another package adds to masked-denoise."""
