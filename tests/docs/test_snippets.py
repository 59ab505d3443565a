"""The Python of README and the pages runs as it stands there, on the toy set and for a moment.

tests/recipes follows docs/recipes.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.documented.blocks import Block, python_blocks
from tests.support.documented.snippets import check_names, reader_s_names, shortened
from tests.support.paths import DOCS

BLOCKS = python_blocks()
ONLY_READ = {
    ("docs/checkpoints.md", "def _get_torch_save_params"): "a part of a class",
    ("docs/checkpoints.md", "MTSAC.from_sb3"): "needs a model of SB3's; tests/agents/checkpoints/test_sb3_import.py",
    ("docs/comparisons.md", "load_runs"): "needs finished runs; tests/experiments/comparisons",
    ("docs/datasets.md", "write_nyuv2"): "tests/supervised/datasets/test_writers.py",
    ("docs/datasets.md", '("primitives", "mt10")'): "renders Meta-World",
    ("docs/distributed.md", "init_process_group"): "needs ranks; examples/distributed.py",
    ("docs/distributed.md", "DistributedDataParallel"): "needs ranks; tests/gradients/test_replicas.py",
    ("docs/results/mt10_encoders.md", "process_time"): "measures for a minute",
    ("docs/start/gpu.md", 'device="cuda"'): "needs a GPU",
    ("docs/start/laptop.md", "from_pretrained"): "plays Meta-World; tests/agents/common/test_pretrained.py",
}
"""By page and a part of the code: why it does not run here."""


def reason(block: Block) -> str | None:
    """Why a block is only read; None if it runs."""
    for (page, part), why in ONLY_READ.items():
        if block.page == page and part in block.text:
            return why
    return None


RUN = [block for block in BLOCKS if reason(block) is None]


def run(block: Block) -> dict[str, Any]:
    """The names that a block leaves behind."""
    code = shortened(block.text)
    names = reader_s_names(code)
    exec(compile(code, block.where, "exec"), names)
    return names


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_names_and_arguments_exist(block: Block) -> None:
    check_names(block.text)


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.where)
def test_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "DualProj" in block.text:
        pytest.importorskip("quadprog", reason="TorchJD's DualProj needs it")
    if "accelerate" in block.text:
        pytest.importorskip("accelerate")
    for seed in range(3):  # evaluations of finished runs, where a page draws some
        (tmp_path / f"runs/imgrad-{seed}").mkdir(parents=True)
        shutil.copy(DOCS / "results/mt10_laptop/evaluations.npz", tmp_path / f"runs/imgrad-{seed}/evaluations.npz")
    run(block)


def test_every_exception_is_of_a_block() -> None:
    for page, part in ONLY_READ:
        assert [block for block in BLOCKS if block.page == page and part in block.text], f"{page} has no {part!r}"


def blocks_of(page: str) -> list[Block]:
    return [block for block in RUN if block.page == page]


def test_the_readme_s_answer() -> None:
    out = run(blocks_of("README.md")[-1])["out"]
    assert out.status.name == "SOLVED"
    assert out.weights.tolist() == pytest.approx([0.496080, 0.287356, 0.494504], abs=1e-4)


def test_before_and_after_torchjd_write_the_same_gradients() -> None:
    before, after = [block for block in blocks_of("docs/migration.md") if "heads[0]" in block.text]
    found = []
    for block in (before, after):
        torch.manual_seed(0)
        names = run(block)
        found.append([parameter.grad for parameter in (*names["trunk"].parameters(), *names["heads"].parameters())])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_wrong_name_or_argument_is_found() -> None:
    with pytest.raises(AttributeError, match="MTSACC"):
        check_names("from mtrl_imgrad import MTSACC")
    with pytest.raises(AssertionError, match="MTSAC takes no combinr"):
        check_names("MTSAC('MlpPolicy', env, combinr='imgrad')")
