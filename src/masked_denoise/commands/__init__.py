"""The commands of `masked-denoise`, one per file: arguments, help and output, no work of their own.

These modules load quickly: torch and everything that needs it is imported when a command runs.
"""
