"""README, CONTRIBUTING and docs/: every snippet loads; every key, command, option, path and link exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import typer
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from client.cli import client_app
from client.keygen import make_key
from client.site import SiteConfig
from hymate.cli import app
from hymate.config import parse
from hymate.overrides import apply_overrides
from hymate.report.card import ModelCard
from hymate.train.config import TrainConfig
from server.cli import simulate_app
from server.server_cli import server_app
from server.simulation_config import SOURCES
from server.study import StudyConfig, load_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILES = (StudyConfig, SiteConfig, TrainConfig, ModelCard)
SECTIONS = sorted({key for kind in FILES for key in kind.model_fields})
PROGRAMS = {
    "hymate": app,
    "hymate-client": client_app,
    "hymate-simulate": simulate_app,
    "flower-server": server_app,
}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str) -> Iterator[str]:
    """YAML of fenced blocks, and of indented ones that begin with a section."""
    yield from re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    for block in re.findall(r"(?<=\n\n)(?:    .*\n)+", text):
        if re.match(rf"    ({'|'.join(SECTIONS)}):( |\n)", block):
            yield re.sub("^    ", "", block, flags=re.MULTILINE)


def inline(text: str) -> list[str]:
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def as_study(content: dict[str, Any]) -> dict[str, Any]:
    """What the page shows, with what every study needs beside it."""
    simulation = content.get("simulation", {})
    whole = {"name": "shown", **content, "simulation": simulation}
    if not set(SOURCES) & set(simulation):
        whole["simulation"] = {"synthetic": {}, **simulation}
    if "federation" in content:
        rest = {"tls": {"ca": "ca.crt"}, "sites": {"north": {"public_key": "north.pub"}}}
        whole["federation"] = {**rest, **content["federation"]}
    return whole


@every_page
def test_every_block_of_yaml_loads(page: Path, tmp_path: Path) -> None:
    (tmp_path / "codes.csv").write_text("local,shared\nHF,HR\n")
    key = make_key(tmp_path, "north").public.read_text().split()[1]
    for block in blocks(page.read_text(encoding="utf-8")):
        content = yaml.safe_load(re.sub(r"(?<=ecdsa-sha2-nistp384 )\S+", key, block))
        if "policy" in content:
            parse(SiteConfig, {"name": "shown", "data": "data", **content}, page)
        elif set(content) & set(ModelCard.model_fields):
            parse(ModelCard, content, page)
        else:
            (tmp_path / "study.yaml").write_text(yaml.safe_dump(as_study(content)))
            load_study(tmp_path / "study.yaml")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The configurations that a field's type names, in unions, mappings and lists, too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def fields(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def below(*kinds: type[BaseModel]) -> set[type[BaseModel]]:
    """`kinds` and every configuration inside of them."""
    found: set[type[BaseModel]] = set()
    new = set(kinds)
    while new:
        found |= new
        inner = [field.annotation for kind in new for field in fields(kind).values()]
        new = {model for annotation in inner for model in models_in(annotation)} - found
    return found


EVERYWHERE = below(*FILES)


def holders(key: str) -> list[type[BaseModel]]:
    """The configurations that `section.key` may be a key of; the sections above may be left out."""
    *sections, last = key.split(".")
    kinds = EVERYWHERE
    for section in sections:
        above = [fields(kind)[section] for kind in kinds if section in fields(kind)]
        kinds = {m for field in above for m in models_in(field.annotation)}
    return [kind for kind in kinds if last in fields(kind)]


def faults(kind: type[BaseModel], key: str, content: dict[str, Any]) -> list[str]:
    """What is wrong with this key's value itself, whatever else its section needs."""
    try:
        kind.model_validate(content)
    except ValidationError as invalid:
        return [
            fault["msg"]
            for fault in invalid.errors()
            if fault["loc"][:1] == (key,) and fault["type"] not in ("missing", "value_error")
        ]
    return []


@every_page
def test_every_key_with_a_value_takes_that_value(page: Path) -> None:
    for code in inline(page.read_text(encoding="utf-8")):
        pair = re.fullmatch(r"([a-z][a-z_.]*): (.+)", code)
        if not pair or not (found := holders(pair[1])):
            continue  # a log line, or a key that the test below knows
        content: dict[str, Any] = {}
        key = pair[1].rsplit(".", 1)[-1]
        apply_overrides(content, [f"{key}={pair[2]}"])
        wrong = [faults(kind, key, content) for kind in found]
        assert [] in wrong, f"{page}: `{code}`: {wrong}"


@every_page
def test_every_key_exists(page: Path) -> None:
    for code in inline(page.read_text(encoding="utf-8")):
        named = re.match(rf"(({'|'.join(SECTIONS)})(\.[a-z_]+)+)(: |$)", code)
        if named and not re.search(r"\.(jsonl?|log|parquet|yaml)$", named[1]):
            assert holders(named[1]), f"{page}: no configuration has {named[1]}"


def commands(text: str) -> Iterator[list[str]]:
    """What a person would type, in words; without what the shell does before and after it."""
    lines = [line for line in re.sub(r"\\\n\s*", " ", text).splitlines() if line.startswith("    ")]
    fenced = "".join(re.findall(r"```\n(.*?)```", text, flags=re.DOTALL)).splitlines()
    for shown in [*lines, *fenced, *inline(text)]:
        for command in re.findall(rf"(?:^|[ /])((?:{'|'.join(PROGRAMS)})(?= [a-z-])[^;&|>#]*)", shown):
            yield shlex.split(re.sub(r" (\.\.\.|\[.*?\])", "", command))


def refused(words: list[str]) -> str:
    """Why the program would not begin with these words; '' where it would."""
    command: click.Command = typer.main.get_command(PROGRAMS[words[0]])
    path, rest = [words[0]], words[1:]
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command, path, rest = command.commands[rest[0]], [*path, rest[0]], rest[1:]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    unknown = [word for word in rest if word.startswith("--") and word not in known]
    if unknown or not rest or rest == ["--help"]:
        return ", ".join(unknown)
    try:
        command.make_context(" ".join(path), list(rest))
    except click.UsageError as fault:
        return fault.format_message()
    return ""


@every_page
def test_every_command_has_these_options(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        assert not refused(words), f"{page}: {shlex.join(words)}"


@every_page
def test_every_file_of_the_project_is_there(page: Path) -> None:
    folders = "benchmarks|client|deploy|docs|hymate|server|strategies|tests"
    for code in inline(page.read_text(encoding="utf-8")):
        for path in re.findall(rf"(?<![\w./-])(?:{folders})/[\w./*-]*", code):
            assert list(ROOT.glob(path)), f"{page}: {path}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(there), f"{page}: {target}"


@every_page
def test_every_make_target_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^    )make ([a-z-]+)", text, flags=re.MULTILINE):
        assert target in targets, f"{page}: make {target}"
