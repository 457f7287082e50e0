"""A plug-in that needs what is not installed."""

import a_package_that_nobody_has  # noqa: F401


class Network:
    """Never defined."""
