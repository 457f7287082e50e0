"""Masking operators: the plain definitions, and (where there is one) a faster path."""

from .reference import fill_hidden, merge_branches

__all__ = ["fill_hidden", "merge_branches"]
