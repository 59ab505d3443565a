"""The commands of the pages' shell blocks, one by one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.documented.blocks import PAGES, Block, blocks
from tests.support.paths import ROOT

PROGRAMS = ("mtrl-imgrad", "python", "python3", "pytest", "make", "pip", "torchrun", "git")
_OF_THE_SHELL = ("export", "cd", "ssh", "ray", "source .venv/bin/activate")
"""Beginnings of lines that are not checked."""
_SHELL = ("bash", "sh", "", "indented")


@dataclass(frozen=True)
class Command:
    """A command with its arguments, without settings of variables before it."""

    where: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where} {shlex.join(self.words)}"


def documented_commands() -> list[Command]:
    """Those of all pages, each once.

    Raises:
        ValueError: for a line of a block of shell that begins with something unknown.
    """
    found: dict[tuple[str, ...], Command] = {}
    for page in PAGES:
        for block in blocks(page):
            if block.language in _SHELL:
                for command in _commands(block):
                    found.setdefault(command.words, command)
        for command in _within_sentences(page):
            found.setdefault(command.words, command)
    return list(found.values())


def _within_sentences(page: Path) -> Iterator[Command]:
    """Calls of Python and pytest beside what they show; those of ``mtrl-imgrad`` are often parts of a command there."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for code in re.findall(r"`((?:python|pytest) [^`]+)`", text):
        yield Command(str(page.relative_to(ROOT)), tuple(shlex.split(code)))


def _commands(block: Block) -> Iterator[Command]:
    """A loop is its first round; variables take their value there."""
    variables: dict[str, str] = {}
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"; *", re.sub(r"(^| )#.*", "", line).strip()):
            part = part.strip().removeprefix("do ").strip()
            loop = re.match(r"for (\w+) in (.*)", part)
            if loop:
                variables[loop[1]] = shlex.split(loop[2])[0]
            if loop or part in ("", "do", "done"):
                continue
            for name, value in variables.items():
                part = part.replace(f"${name}", value)
            words = [word for word in shlex.split(part) if not re.match(r"[A-Z_]+=", word)] if _is_shell(part) else []
            if words and words[0].removeprefix(".venv/bin/") in PROGRAMS:
                yield Command(block.where, (words[0].removeprefix(".venv/bin/"), *words[1:]))
            elif block.language in ("bash", "sh") and not part.startswith(_OF_THE_SHELL):
                raise ValueError(f"{block.where} calls no known program: {part}")


def _is_shell(part: str) -> bool:
    return re.match(rf"([A-Z_]+=\S+ )*(\.venv/bin/)?({'|'.join(map(re.escape, PROGRAMS))}) ", f"{part} ") is not None
