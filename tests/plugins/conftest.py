"""This folder is a package of its own, which `test_plugins.py` installs; nothing here is a test."""

collect_ignore_glob = ["*"]
