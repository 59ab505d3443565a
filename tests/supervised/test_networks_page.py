"""The Python of docs/supervised_networks.md runs as it stands there."""

import re

import numpy as np
import torch

from tests.support.paths import DOCS

PAGE = DOCS / "supervised_networks.md"


def test_lines_of_the_page(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = {}
    exec(compile(code, PAGE.name, "exec"), found)
    assert np.isfinite(float(capsys.readouterr().out))
    torch.stack(list(found["losses"].values())).sum().backward()
    assert all(parameter.grad is not None for parameter in found["shared"])
