"""Doctests in docstrings as blocks of code, for the site generator, which reads them in a section of examples only."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_DOCTEST = re.compile(r"^( *)>>> (?:(?!^ *$).)*", re.MULTILINE | re.DOTALL)
"""Up to the next empty line."""


class Doctests(Extension):
    """Fences every doctest."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was found."""
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(_fenced, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    return f"{match[1]}```pycon\n{match[0].rstrip()}\n{match[1]}```\n"
