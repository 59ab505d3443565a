"""``references.bib`` is the only source of the papers: methods, docstrings and docs agree with it."""

import inspect
import re
from pathlib import Path

import pytest

from mtrl_imgrad.combiners import combiner_class, list_combiners, make_combiner
from mtrl_imgrad.combiners.references import references

DOCS = " ".join((Path(__file__).parents[2] / "docs" / "combiners.md").read_text(encoding="utf-8").split())


@pytest.mark.parametrize("name", list_combiners())
def test_a_method_and_its_docstring_cite_an_entry(name):
    method = combiner_class(name)
    entry = references()[method.citation]
    assert entry.line in " ".join((inspect.getmodule(method).__doc__ or "").split())
    assert f"{{{method.citation}," in method.bibtex.splitlines()[0]


@pytest.mark.parametrize("key", list(references()))
def test_the_docs_cite_every_entry_in_its_words(key):
    entry = references()[key]
    assert entry.line in DOCS
    before = [DOCS[: match.start()] for match in re.finditer(rf", arXiv {entry.arxiv}\b", DOCS) if entry.arxiv]
    assert all(text.endswith(entry.short) for text in before)


def test_every_entry_is_of_a_method():
    assert set(references()) == {combiner_class(name).citation for name in list_combiners()}


def test_the_forms_of_a_reference():
    entry = references()["ban2024fair"]
    assert entry.full == (
        "Hao Ban and Kaiyi Ji. Fair Resource Allocation in Multi-Task Learning. ICML 2024. arXiv:2402.15638"
    )
    assert entry.short == "Ban and Ji, ICML 2024"
    assert combiner_class("upgrad").paper.endswith("for Multi-Objective Optimization. 2024. arXiv:2406.16232")
    assert references()["lin2022reasonable"].short == "Lin et al., TMLR 2022"
    assert references()["chen2018gradnorm"].title.startswith("GradNorm: Gradient Normalization")
    assert make_combiner("fairgrad").cite() == entry.bibtex
