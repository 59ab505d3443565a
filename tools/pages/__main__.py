"""Write the folder that the site generator reads: ``python -m tools.pages build``, as ``make docs`` does."""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from mtrl_imgrad.agents.encoders import ENCODERS
from mtrl_imgrad.agents.registry import AGENTS
from mtrl_imgrad.combiners import list_combiners
from tools import import_map
from tools.pages import methods
from tools.pages.floors import drawing as floors_drawing
from tools.pages.links import relink, take_sections
from tools.pages.notebooks import notebook_page
from tools.pages.reference import PACKAGES, reference_page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OTHERS = {name: f"{name.lower()}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")}


def build(target: Path) -> None:
    """Write ``target/mkdocs.yml`` and ``target/pages``; what was there is replaced."""
    pages = target / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(DOCS, pages, ignore=shutil.ignore_patterns("*.py", "*.npz", "*.ipynb"))
    for name, (source, text) in all_pages().items():
        path = pages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = drawn_diagrams(relink(text, source, name, places()))
        path.write_text(f"{text}\n", encoding="utf-8")
    configuration = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (target / "mkdocs.yml").write_text(with_all_pages(configuration), encoding="utf-8")


def all_pages() -> dict[str, tuple[str, str]]:
    """By page the file that its links are relative to, and its Markdown."""
    found = {str(path.relative_to(DOCS)): (str(path.relative_to(ROOT)), _read(path)) for path in DOCS.rglob("*.md")}
    found |= {page: (f"{name}.md", _read(ROOT / f"{name}.md")) for name, page in OTHERS.items()}
    found |= {page: (source, notebook_page(ROOT / source)) for source, page in notebooks().items()}
    laws = _laws()

    overview, sections = take_sections(_read(DOCS / "combiners.md"), set(list_combiners()))
    overview = overview.replace("\n## ", f"\n{methods.combiner_table()}\n\n## ", 1)
    found["combiners.md"] = ("docs/combiners.md", overview)
    for name in list_combiners():
        text = relink(sections[name], "docs/combiners.md", f"combiners/{name}.md", places())
        found[f"combiners/{name}.md"] = (f"docs/combiners/{name}.md", methods.combiner_page(name, text, laws[name]))

    overview, sections = take_sections(_read(DOCS / "encoders.md"), set(ENCODERS))
    overview = overview.replace("\n## ", f"\n{methods.encoder_list()}\n\n## ", 1)
    found["encoders.md"] = ("docs/encoders.md", overview)
    for name in ENCODERS:
        text = relink(sections[name], "docs/encoders.md", f"encoders/{name}.md", places())
        found[f"encoders/{name}.md"] = (f"docs/encoders/{name}.md", methods.encoder_page(name, text))

    for name in AGENTS:
        found[f"{name}.md"] = (f"docs/{name}.md", methods.agent_page(name, _read(DOCS / f"{name}.md")))
    found["presets.md"] = ("docs/presets.md", methods.presets_page())
    for package in PACKAGES:
        found[f"reference/{package}.md"] = (f"docs/reference/{package}.md", reference_page(package))
    return found


def places() -> dict[str, str]:
    """Pages by file, where they are not in the same place as in docs; see `relink`."""
    found = {f"{name}.md": page for name, page in OTHERS.items()} | notebooks()
    found |= {f"docs/combiners.md#{name}": f"combiners/{name}.md" for name in list_combiners()}
    return found | {f"docs/encoders.md#{name}": f"encoders/{name}.md" for name in ENCODERS}


def notebooks() -> dict[str, str]:
    """Pages of the notebooks by file."""
    return {f"docs/notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in DOCS.glob("notebooks/*.ipynb")}


def drawn_diagrams(text: str) -> str:
    """The map of the rooms as a drawing in place of Mermaid's source, which a browser needs the network to draw."""

    def drawn(match: re.Match[str]) -> str:
        floors = [list(rooms) for rooms in reversed(import_map.FLOORS)]
        return f'<div class="map">{floors_drawing(floors, import_map.drawn_arrows(), import_map.EXCEPTIONS)}</div>'

    return re.sub(r"^```mermaid\n.*?^```$", drawn, text, flags=re.MULTILINE | re.DOTALL)


def with_all_pages(configuration: str) -> str:
    """The site's configuration with the pages of a folder in place of ``FOLDER/*``."""
    folders = {
        "combiners": list_combiners(),
        "encoders": list(ENCODERS),
        "reference": list(PACKAGES),
    }

    def listed(match: re.Match[str]) -> str:
        indent, folder = match.groups()
        return "\n".join(
            f"{indent}- {name.removeprefix('mtrl_imgrad.')}: {folder}/{name}.md" for name in folders[folder]
        )

    return re.sub(r"^( *)- (\w+)/\*$", listed, configuration, flags=re.MULTILINE)


def _laws() -> dict[str, dict[str, tuple[str, str]]]:
    """By combiner and law, what the law says, and whether it holds: the tables of docs/combiner_properties.md."""
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in _read(DOCS / "combiner_properties.md").splitlines()
        if line.startswith("|")
    ]
    says = {row[0]: row[1] for row in rows if len(row) == 2}
    names = next(row for row in rows if row[0] == "order" and len(row) > 2)
    answers = {row[0].strip("`"): row[1:] for row in rows if row[0].startswith("`")}
    return {
        name: {law: (says[law], answer) for law, answer in zip(names, row, strict=True)}
        for name, row in answers.items()
    }


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    build(parser.parse_args().target)
