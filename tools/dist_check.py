"""Builds sdist and wheel, installs the wheel in an environment of its own, and tries it.

python tools/dist_check.py                      # dependencies: those of this environment; no download but for the build
python tools/dist_check.py --fresh core rl all  # each in a new environment, from the registry: seconds and size

The wheel is built out of the sdist, so that a file which the sdist lacks is missing in the wheel, too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CONTENTS = ("*.yaml", "*.npz", "*.bib", "*.safetensors", "published_tables.json", "py.typed")
"""Files of the package that are no Python; the wheel must have all of them."""

CORE = """
import torch, mtrl_imgrad
weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
combiner = mtrl_imgrad.make_combiner("imgrad")
combiner.backward([(weight[0] - 3) ** 2 + weight[1] ** 2, weight.square().sum()], [weight])
assert weight.grad.isfinite().all() and weight.grad.any()
assert "zhou2025injecting" in combiner.bibtex
print(f"mtrl-imgrad {mtrl_imgrad.__version__} from {mtrl_imgrad.__file__}: a step of IMGrad")
"""

TOY_RUN = (
    "train --env toy-reach --total-timesteps 400 --learning-starts 100 --net-arch 16 --batch-size 16 --eval-freq 0 "
    "--eval-episodes 1 --final-episodes 1 --encoder one_hot --no-progress-bar --run-dir run"
).split()

COMMANDS = (["doctor"], ["presets"], ["combiners", "imgrad"], TOY_RUN, ["evaluate", "run", "--episodes", "1"])


def build(folder: Path) -> tuple[Path, Path]:
    """Sdist and wheel in ``folder``."""
    _run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path) -> None:
    """Hold both files against the package's folder."""
    package = ROOT / "mtrl_imgrad"
    expected = {str(path.relative_to(ROOT)) for pattern in ("*.py", *CONTENTS) for path in package.rglob(pattern)}
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    for kind, names in (("sdist", in_sdist), ("wheel", in_wheel)):
        if missing := sorted(expected - names):
            sys.exit(f"the {kind} lacks {', '.join(missing)}")
    print(f"{len(expected)} files of the package are in {sdist.name} and {wheel.name}")


def borrowed(folder: Path, wheel: Path) -> Path:
    """A new environment with the wheel alone, which finds all other packages in this one; its ``bin``."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    _run(_pip(folder), "install", "--quiet", "--no-deps", wheel)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def fresh(folder: Path, wheel: Path, extra: str) -> Path:
    """A new environment with the wheel and what it needs, in their newest versions; its ``bin``."""
    _run(sys.executable, "-m", "venv", "--without-pip", folder)
    began = time.monotonic()
    _run(_pip(folder), "install", "--quiet", str(wheel) if extra == "core" else f"{wheel}[{extra}]")
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    print(f"{extra}: {time.monotonic() - began:.0f} s, {size:.0f} MiB")
    return folder / "bin"


def try_it(bin_folder: Path, folder: Path, core_only: bool = False) -> None:
    """Run the library from outside of the repository."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*command: str | Path) -> None:
        _run(*command, cwd=folder, env=environment)

    run(bin_folder / "python", "-c", CORE)
    for command in () if core_only else COMMANDS:
        run(bin_folder / "mtrl-imgrad", *command)


def _pip(folder: Path) -> list[str | Path]:
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python"]


def _run(*command: str | Path | list[str | Path], **options: object) -> None:
    words = [str(word) for part in command for word in (part if isinstance(part, list) else [part])]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Build, and try it once or in each fresh environment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", nargs="*", metavar="EXTRA", help="core, or an extra")
    parser.add_argument("--out", type=Path, help="keep sdist and wheel in this folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = given.out or folder / "dist"
        out.mkdir(parents=True, exist_ok=True)
        for old in (*out.glob("*.tar.gz"), *out.glob("*.whl")):
            old.unlink()
        sdist, wheel = build(out.resolve())
        check_contents(sdist, wheel)
        if not given.fresh:
            try_it(borrowed(folder / "venv", wheel), folder)
        for extra in given.fresh or ():
            place = folder / extra
            place.mkdir()
            try_it(fresh(place / "venv", wheel, extra), place, core_only=extra == "core")
    print("the wheel works")


if __name__ == "__main__":
    main()
