"""Make a trained agent of a run that is shipped with the library: ``python tools/make_pretrained.py RUN NAME``.

Writes mtrl_imgrad/pretrained/NAME: the agent as JSON and safetensors, with a card of where it comes from (the run's
configuration, its last evaluation). ``from_pretrained(NAME)`` of its class loads it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from mtrl_imgrad.agents.common.pretrained import FOLDER, save_pretrained
from mtrl_imgrad.experiments.rl.evaluate import load_run


def card_of(run: Path, model: str) -> dict[str, Any]:
    """The configuration of a run and its last report, as plain data."""
    report = json.loads((run / "evaluation_after.json").read_text()) if model == "model" else None
    config = yaml.safe_load((run / "config.yaml").read_text())
    config.pop("run_dir", None)  # of this machine
    return {"model": model, "config": json.dumps(config), "evaluation": json.dumps(report)}


def main(arguments: list[str] | None = None) -> None:
    """Read the options and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--model", choices=("model", "best_model"), default="model")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="another place, for tests")
    options = parser.parse_args(arguments)
    _, load = load_run(options.run, options.model)
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = save_pretrained(load(), options.folder / options.name, card_of(options.run, options.model))
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder}: {size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
