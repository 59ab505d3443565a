"""The report of finished runs: one HTML page that needs nothing else, and the same as Markdown, LaTeX and CSV."""

from __future__ import annotations

import base64
import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import yaml

from mtrl_imgrad.experiments.comparisons.figures import draw_figures, refuse_too_many
from mtrl_imgrad.experiments.comparisons.published import PUBLISHED_MT10
from mtrl_imgrad.experiments.comparisons.records import RunRecord, tidy_rows
from mtrl_imgrad.experiments.comparisons.summary import Summary, summarize
from mtrl_imgrad.reporting.atomic_files import make_folder, write_text
from mtrl_imgrad.reporting.tables import markdown_rows

PUBLISHED_HEADER = ["method", "mean", "IQM", "protocol", "source"]
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
.wide { overflow-x: auto; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #eee; }
th { vertical-align: bottom; } td { vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; } td.text { white-space: normal; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; } figcaption { color: #6b6b6b; font-size: 0.85rem; }
pre { background: #f6f6f6; padding: 0.8rem; overflow-x: auto; font-size: 0.8rem; }
"""


@dataclass(frozen=True)
class _Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: Sequence[str] = ()
    """Columns of words, which may be broken."""


@dataclass(frozen=True)
class _Page:
    """The report, from top to bottom."""

    title: str
    protocol: Sequence[str]
    methods: _Table
    statements: Sequence[str]
    others: Sequence[_Table]
    figures: Mapping[Path, str]
    settings: str


def write_report(records: Sequence[RunRecord], folder: Path, title: str = "Comparison") -> Path:
    """Write ``index.html``, ``report.md``, ``table.tex``, ``runs.csv`` (every task and evaluation) and the figures.

    Args:
        records: finished runs of the same tasks.
        folder: to write to; made.
        title: of the page.

    Returns:
        The path of the page.

    Raises:
        ArgumentError: above twelve methods, or where no task has a notion of success.
    """
    refuse_too_many(records)
    make_folder("out", folder)
    summary = summarize(records)
    methods, *others = _tables(records, summary)
    figures = draw_figures(records, folder / "figures")
    page = _Page(title, _protocol(records), methods, summary.statements, others, figures, _settings(records))
    write_text(folder / "report.md", _markdown(page, folder))
    write_text(folder / "table.tex", _latex(methods))
    write_text(folder / "runs.csv", _csv(records))
    write_text(folder / "index.html", _html(page))
    return folder / "index.html"


def _tables(records: Sequence[RunRecord], summary: Summary) -> list[_Table]:
    tables = [
        _Table("Methods at the final step", summary.header(), summary.rows()),
        _Table("Success by task, mean over seeds", *summary.task_rows()),
        _Table("Every seed", *summary.seed_rows()),
    ]
    if records[0].data["config"]["env"]["env"] == ["MT10"]:
        rows = [list(map(str, astuple(row))) for row in PUBLISHED_MT10]
        title = "Published numbers on MT10, quoted; see the protocol of each"
        tables.insert(1, _Table(title, PUBLISHED_HEADER, rows, text=PUBLISHED_HEADER[-2:]))
    return tables


def _protocol(records: Sequence[RunRecord]) -> list[str]:
    """How the numbers were made, in sentences."""
    data, seeds = records[0].data, sorted({record.seed for record in records})
    final, config = data["final"], data["config"]
    how = "the mean of the policy" if final["protocol"]["deterministic"] else "sampled actions"
    simulators = sorted({str(record.data["final"]["protocol"]["simulator"]) for record in records})
    return [
        f"Tasks: {', '.join(config['env']['env'])} ({len(data['tasks'])}). Agent: {config['agent']['name']}. "
        f"{len(records)} runs, seeds {', '.join(map(str, seeds))}.",
        f"Success: any step of the episode. Final step: {data['timesteps']:,} environment steps over all tasks; "
        f"{final['episodes']} episodes a task, {how}, simulator {', '.join(simulators)}, "
        f"goals of the evaluation: {config['evaluation']['eval_goals']}.",
        "Mean and interquartile mean (IQM) over seeds and tasks with 95 % stratified bootstrap intervals over seeds. "
        "P(beats best): probability that a run of the method beats one of the best method on a task drawn at random "
        "(ties count half). Best in training is picked by its own episodes and looks better than it is.",
    ]


def _settings(records: Sequence[RunRecord]) -> str:
    """The first run's configuration and versions, as YAML."""
    data = records[0].data
    kept = {"versions": data["versions"], "config": {k: v for k, v in data["config"].items() if k != "run_dir"}}
    return yaml.safe_dump(kept, sort_keys=False)


def _markdown(page: _Page, folder: Path) -> str:
    def section(table: _Table) -> list[str]:
        return [f"## {table.title}", markdown_rows(table.header, table.rows)]

    parts = [f"# {page.title}", *page.protocol, *section(page.methods)]
    parts.append("\n".join(f"* {sentence}" for sentence in page.statements))
    parts += [part for table in page.others for part in section(table)]
    parts.append("## Figures")
    parts += [f"![{what}]({path.relative_to(folder)})\n\n*{what}*" for path, what in page.figures.items()]
    return "\n\n".join(parts) + "\n"


def _latex(table: _Table) -> str:
    """For booktabs."""
    lines = [r"\begin{tabular}{l" + "r" * (len(table.header) - 1) + "}", r"\toprule"]
    lines += [" & ".join(map(_tex, table.header)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_tex, row)) + r" \\" for row in table.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, "\\" + character)
    return text


def _csv(records: Sequence[RunRecord]) -> str:
    rows = tidy_rows(records)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _html(page: _Page) -> str:
    title = html.escape(page.title)
    body = [f"<h1>{title}</h1>", *(f"<p>{html.escape(text)}</p>" for text in page.protocol)]
    body += [_html_table(page.methods), _list(page.statements), *map(_html_table, page.others), "<h2>Figures</h2>"]
    for path, what in page.figures.items():
        image = base64.b64encode(path.read_bytes()).decode()
        source = f"data:image/png;base64,{image}"
        text = html.escape(what)
        body.append(f'<figure><img alt="{text}" src="{source}"><figcaption>{text}</figcaption></figure>')
    body += ["<h2>Configuration and versions of the first run</h2>", f"<pre>{html.escape(page.settings)}</pre>"]
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def _html_table(table: _Table) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' if name in table.text else "" for name in table.header]
        marked = zip(kinds, map(html.escape, cells), strict=True)
        return "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in marked) + "</tr>"

    rows = "\n".join(line(row, "td") for row in table.rows)
    body = f"<thead>{line(table.header, 'th')}</thead>\n<tbody>{rows}</tbody>"
    return f'<h2>{html.escape(table.title)}</h2>\n<div class="wide"><table>{body}</table></div>'


def _list(sentences: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences) + "</ul>"
