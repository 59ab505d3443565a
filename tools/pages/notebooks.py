"""Notebooks of docs/notebooks as pages: text as it is, cells as Python, what they showed below them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def notebook_page(path: Path) -> str:
    """The Markdown of a notebook, with a link to the file itself."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = ["".join(part) for cell in cells for part in _cell(cell)]
    note = f"*A notebook: docs/notebooks/{path.name} of the repository. `pytest tests/docs/test_notebooks.py` runs it.*"
    return "\n\n".join([parts[0], note, *parts[1:]])


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    text = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield text
        return
    yield f"```python\n{text}\n```"
    for output in cell["outputs"]:
        yield _output(output)


def _output(output: dict[str, Any]) -> str:
    """HTML where there is some, then a picture, then text."""
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="output">{"".join(data["text/html"])}</div>'
    if "image/png" in data:
        return f'<img alt="what the cell draws" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    return f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```"
