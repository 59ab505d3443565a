"""The live view of a training where rich finds itself in a notebook."""

import io
import sys
import types
from importlib.machinery import ModuleSpec

from rich.console import Console

from mtrl_imgrad.agents.callbacks import progress


def notebook():
    return Console(file=io.StringIO(), force_jupyter=True, force_terminal=False, width=80)


def test_a_notebook_redraws_where_it_has_widgets(monkeypatch):
    widgets = types.ModuleType("ipywidgets")
    widgets.__spec__ = ModuleSpec("ipywidgets", None)
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)
    assert progress._can_redraw(notebook())
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    assert not progress._can_redraw(notebook())


def test_a_file_gets_lines():
    assert not progress._can_redraw(Console(file=io.StringIO()))
