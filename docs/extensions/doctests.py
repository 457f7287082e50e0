"""Shows the examples of docstrings as code: what begins with >>> becomes a fenced block."""

from __future__ import annotations

from typing import Any

import griffe


class Doctests(griffe.Extension):
    """Put fences around the doctests of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(text: str) -> str:
    """Return the text with a fence around every paragraph that begins with >>>.

    >>> print(fenced(">>> 1 + 1\\n2\\n\\nText").replace("`", "'"))
    '''pycon
    >>> 1 + 1
    2
    '''
    <BLANKLINE>
    Text
    """
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        f"```pycon\n{one.strip()}\n```" if one.lstrip().startswith(">>>") else one
        for one in paragraphs
    )
