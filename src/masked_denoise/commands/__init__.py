"""The commands of `masked-denoise`, one a file: arguments, help and printing; no work of their own.

These modules load quickly: torch and everything on it is imported when a command runs.
"""
