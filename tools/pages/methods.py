"""A page for each combiner, encoder and agent of the registries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import yaml

from mtrl_imgrad.agents.encoders import ENCODERS
from mtrl_imgrad.agents.registry import AGENTS
from mtrl_imgrad.combiners import Combiner, combiner_class, list_combiners, make_combiner
from mtrl_imgrad.combiners.references import references
from mtrl_imgrad.experiments.catalogue import COSTS, state_names
from mtrl_imgrad.experiments.presets import list_presets, preset_path
from tools.pages.arrows import CASES, one_step

GIVEN = {"cotbal": {"mini": [0.5, 0.4], "single": [[0.6, 0.5], [0.5, 0.7]]}}
"""Arguments of the picture, of combiners that must be given some."""


def combiner_page(name: str, text: str, laws: Mapping[str, tuple[str, str]]) -> str:
    """The page of a combiner.

    Args:
        name: in the registry.
        text: its section of docs/combiners.md.
        laws: by name of a law, what it says, and whether the combiner obeys it.
    """
    combiner = combiner_class(name)
    arguments = GIVEN.get(name, {})
    rows = {
        "paper": _with_links(combiner.paper),
        "a step needs": COSTS[combiner.needs],
        "keeps": ", ".join(f"`{part}`" for part in state_names(combiner)) or "nothing",
        "departures": f"{combiner.departures or 'None.'} In numbers: [authors](../authors.md).",
        "in Python": f'`make_combiner("{name}"{"".join(f", {key}=..." for key in arguments)})`',
        "command line": f"`mtrl-imgrad train --combiner {name}`, `mtrl-imgrad combiners {name}`",
    }
    return "\n".join(
        [
            f"# {name}",
            "",
            _table(rows),
            "",
            _pictures([make_combiner(name, **arguments) for _ in CASES]),
            "",
            "*Gradients g1 and g2 of two tasks, their mean, and the step d that a new combiner makes of them. The "
            "optimizer moves against d: a task's loss falls where d lies on its gradient's side.*",
            "",
            "## What it does",
            "",
            text,
            "",
            "## What it obeys",
            "",
            "| law | what it says | |",
            "|---|---|---|",
            *(f"| {law} | {says} | {answer} |" for law, (says, answer) in laws.items()),
            "",
            "Measured on many problems: [what each combiner obeys](../combiner_properties.md).",
            "",
            "## Arguments",
            "",
            _reference(combiner),
            "",
            "## Cite",
            "",
            f"```bibtex\n{combiner.bibtex.strip()}\n```",
        ]
    )


def combiner_table() -> str:
    """All combiners, what a step of each costs, and the paper."""
    lines = ["| combiner | a step needs | paper |", "|---|---|---|"]
    for name in list_combiners():
        combiner = combiner_class(name)
        paper = references()[combiner.citation].short
        lines.append(f"| [`{name}`](combiners/{name}.md) | {COSTS[combiner.needs]} | {paper} |")
    return "\n".join(lines)


def encoder_page(name: str, text: str) -> str:
    """The page of an encoder, with its section of docs/encoders.md."""
    return "\n".join(
        [
            f"# {name}",
            "",
            f"`policy_kwargs=dict(encoder={name!r})`, `mtrl-imgrad train --encoder {name}`. Sizes, costs and published "
            "results: [encoders](../encoders.md).".replace("'", '"'),
            "",
            text,
            "",
            "## Arguments",
            "",
            _reference(ENCODERS[name]),
        ]
    )


def encoder_list() -> str:
    """Links to the encoders' pages."""
    return "A page each: " + ", ".join(f"[`{name}`](encoders/{name}.md)" for name in ENCODERS) + "."


def agent_page(name: str, text: str) -> str:
    """The page of an agent: its page in docs, its presets and arguments."""
    presets = [preset for preset in list_presets("rl") if _agent_of(preset) == name]
    lines = [text.strip(), "", "## Its presets", "", "| `--preset` | what for |", "|---|---|"]
    lines += [f"| [`{preset}`](presets.md#{preset}) | {_purpose(preset)} |" for preset in presets]
    return "\n".join([*lines, "", "## Arguments", "", _reference(AGENTS[name])])


def presets_page() -> str:
    """Every preset as it is, with the source of each value."""
    lines = ["# Presets", "", "A preset sets the defaults of all other options; each value has its source beside it."]
    for kind, option in (("rl", "train --preset"), ("supervised", "supervised --data")):
        for name in list_presets(kind):  # type: ignore[arg-type]
            text = preset_path(kind, name).read_text(encoding="utf-8").strip()  # type: ignore[arg-type]
            lines += ["", f"## {name}", "", f"`mtrl-imgrad {option} {name}`", "", f"```yaml\n{text}\n```"]
    return "\n".join(lines)


def _purpose(preset: str) -> str:
    return preset_path("rl", preset).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def _agent_of(preset: str) -> str:
    text = preset_path("rl", preset).read_text(encoding="utf-8")
    return yaml.safe_load(text)["agent"].get("name", "mtsac")


def _pictures(combiners: Sequence[Combiner]) -> str:
    figures = []
    for case, combiner in zip(CASES, combiners, strict=True):
        combiner.set_random_seed(0)
        picture, words = one_step(combiner, case)
        figures.append(f"<figure>{picture}<figcaption><b>{case.title}</b><br>{words}</figcaption></figure>")
    return '<div class="steps">\n' + "\n".join(figures) + "\n</div>"


def _reference(kind: type) -> str:
    """A block that the site generator fills with a class's signature and docstring."""
    options = ("members: []", "show_root_heading: false", "show_root_toc_entry: false")
    return "\n      ".join([f"::: {kind.__module__}.{kind.__qualname__}\n    options:", *options])


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| **{name}** | {text} |" for name, text in rows.items())])


def _with_links(paper: str) -> str:
    return re.sub(r"arXiv:([\d.]+\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", paper)
