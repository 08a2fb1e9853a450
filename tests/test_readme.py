"""The docs do what they say: their commands are typed here, their links and keys looked up.

test_tutorial.py and test_data_tutorial.py type the tutorials; the commands of other pages are parsed and
validated here, as they need data of the reader's. Both languages of a page must hold the same commands.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import textwrap
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mengya
from mengya.cli import VERBS, app, config_class_of, find_verb, read_arguments
from mengya.runtime.config_keys import describe
from mengya.world import WorldConfig, generate
from tests.helpers.doc_page import (
    BIN,
    ROOT,
    blocks,
    environment,
    inline_code,
    joined,
    prose,
    read,
    type_in,
)

PACKAGE = ROOT / "src/mengya"
TYPED = {"docs/tutorial.md", "docs/data_tutorial.md"}  # test_tutorial.py, test_data_tutorial.py
ONE_LANGUAGE = {"CHANGELOG.md"}  # and docs/log


def _pages() -> list[str]:
    """Every page of the docs, as a path below the clone."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


PAGES = _pages()
TRANSLATIONS = {
    page.replace(".zh.md", ".md"): page for page in PAGES if page.endswith(".zh.md")
}  # English page -> Chinese page


def commands(page: str) -> list[list[str]]:
    """The arguments after `mengya` of every command of a page, in blocks and in the text."""
    lines = [line for block in blocks(page, "sh") for line in joined(block).splitlines()]
    lines += [code for code in inline_code(page) if code.startswith("mengya ")]
    lines += re.findall(r"^    (mengya .*)$", joined(prose(page)), re.MULTILINE)
    found = []
    for line in lines:
        match = re.search(r"(?:^|[ /])mengya (\w+ ?.*)$", line)
        if match:
            found.append(shlex.split(match[1], comments=True))
    return found


def verbs_of_the_cli() -> set[str]:
    """With those in groups, which are two words."""
    return {command.name or "" for command in app.registered_commands} | {*VERBS}


def inline_commands(page: str) -> list[str]:
    """What a reader could type from the text between the blocks, without repetitions."""
    indented = re.findall(r"^    (\S.*)$", joined(prose(page)), re.MULTILINE)
    programs = ("mengya ", "python ", "bash ", "make ", "pip ", ".venv/", "DATA=", "BASE=")
    return sorted({code for code in [*inline_code(page), *indented] if code.startswith(programs)})


@pytest.mark.parametrize("page", TRANSLATIONS)
def test_both_languages_hold_the_same_commands(page: str) -> None:
    translation = TRANSLATIONS[page]
    comment = re.compile(r" +# .*$", re.MULTILINE)  # may be translated
    assert [comment.sub("", block) for block in blocks(page)] == [
        comment.sub("", block) for block in blocks(translation)
    ]
    assert inline_commands(page) == inline_commands(translation)
    assert Path(translation).name in read(page)
    assert Path(page).name in read(translation)


def test_every_page_is_in_both_languages() -> None:
    english = {page for page in PAGES if not page.endswith(".zh.md") and "docs/log/" not in page}
    assert english - ONE_LANGUAGE == set(TRANSLATIONS)


@pytest.mark.parametrize("page", PAGES)
def test_no_command_is_wider_than_a_terminal(page: str) -> None:
    for block in blocks(page, "sh", "console"):
        for line in block.splitlines():
            if "mengya " in line and not line.startswith("error:"):
                assert len(line) <= 110, f"{page}: {line}"


def slug(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / file if file else ROOT / page
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page}: {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if "docs/log/" not in page])
def test_links_stay_in_the_language_of_the_page(page: str) -> None:
    translation = page.replace(".md", ".zh.md") if page in TRANSLATIONS else None
    own = {Path(page).name, Path(translation or page.replace(".zh.md", ".md")).name}
    for target in re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", prose(page)):
        linked = ((ROOT / page).parent / target).resolve()
        if target.startswith("http") or linked.name in own or "/log/" in linked.as_posix():
            continue
        chinese = linked.name.endswith(".zh.md")
        has_both = chinese or linked.with_name(f"{linked.stem}.zh.md").exists()
        assert not has_both or chinese == page.endswith(".zh.md"), f"{page}: {target}"


@pytest.mark.parametrize("page", [page for page in PAGES if "docs/log/" not in page])
def test_source_files_that_pages_name_exist(page: str) -> None:
    """Paths below the clone or below src/mengya; a test of no folder cannot be found by a reader."""
    for code in inline_code(page):
        assert not re.fullmatch(r"test_\w+\.py", code), f"{page}: {code} without its folder"
        if re.fullmatch(r"(\w+/)+\w+\.(py|js|css|yaml)", code) and "NAME" not in code:
            assert any((root / code).is_file() for root in (ROOT, PACKAGE)), f"{page}: {code}"
        elif page.startswith("CONTRIBUTING") and re.fullmatch(r"\w+/", code):
            assert any((root / code).is_dir() for root in (ROOT, PACKAGE)), f"{page}: {code}"


def enforced_rows() -> list[set[str]]:
    """ROWS of test_imports.py."""
    for node in ast.parse(read("tests/test_imports.py")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROWS":
            return ast.literal_eval(node.value)
    raise AssertionError("test_imports.py has no ROWS")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CONTRIBUTING.zh.md"])
def test_the_layout_is_what_the_tests_enforce(page: str) -> None:
    """The diagram has the rows of test_imports.py, the table each package and module once."""
    diagram = re.search(r"^    cli.*?\n\n", read(page), re.MULTILINE | re.DOTALL)
    assert diagram
    drawn = [set(re.findall(r"\w+", row)) for row in reversed(diagram[0].split(">"))]
    there = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith(("_", "."))}
    assert drawn == [kept for row in enforced_rows() if (kept := row & there)]
    table = [row.split("|")[1] for row in read(page).splitlines() if "` | " in row]
    names = [name for cell in table for name in re.findall(r"`(\w+)(?:/|\.py)`", cell)]
    assert sorted(names) == sorted(set().union(*drawn))


@pytest.mark.parametrize("page", ["docs/guide.md", "docs/guide.zh.md"])
def test_the_guides_python_is_that_of_the_example(page: str) -> None:
    """tests/examples runs the example."""
    code = next(block for block in blocks(page, "python") if "mengya.pretrain" in block)
    example = read("examples/train_in_python.py")
    assert textwrap.indent(code, "    ") in example
    public = {name for name in mengya.__all__ if name.islower() and not name.startswith("_")}
    assert public <= set(inline_code(page))


@pytest.mark.parametrize("page", ["docs/guide.md", "docs/tutorial.md"])
def test_every_verb_answers_help(page: str) -> None:
    verbs = {find_verb(arguments)[0] for arguments in commands(page)}
    assert verbs <= verbs_of_the_cli()
    assert {"tokenizer", "prepare", "pretrain", "sft", "evaluate", "chat"} <= verbs
    for verb in verbs:
        done = subprocess.run(
            [BIN / "mengya", *verb.split(), "--help"],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert f"mengya {verb}" in done.stdout


@pytest.mark.parametrize("page", sorted(TRANSLATIONS.keys() - TYPED))
def test_every_command_is_a_valid_configuration(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # recipes are named from the clone
    for verb, arguments in map(find_verb, commands(page)):
        assert verb in verbs_of_the_cli()
        if re.search(r"RECIPE|CHECKPOINT|NAME", " ".join(arguments)):
            continue  # stands for the reader's own
        if verb in VERBS and arguments and not arguments[0].startswith("--"):
            read_arguments(config_class_of(verb), VERBS[verb].positional, arguments)
        elif verb == "parameters" or (arguments and verb == "plan"):
            CliRunner().invoke(app, [verb, *arguments], catch_exceptions=False)


def test_the_pages_that_teach_commands_have_some() -> None:
    assert len(commands("README.md")) >= 6
    assert len(commands("docs/guide.md")) >= 15


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_readme_names_every_verb(page: str) -> None:
    """In its table of commands; a group by its first word."""
    table = read(page)[read(page).index("| `demo` |") :].split("\n\n", 1)[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert named == {verb.split()[0] for verb in verbs_of_the_cli() if verb}


@pytest.mark.parametrize("page", PAGES)
def test_every_key_in_the_text_exists(page: str) -> None:
    known = {row[0] for verb in VERBS for row in describe(config_class_of(verb))}
    for word in " ".join(inline_code(page)).split():
        key, equals, value = word.partition("=")
        if value.startswith("="):
            continue  # a version, as pip writes it
        if equals and re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key) and key not in ("key", "key.sub"):
            # pretrained= is an argument of lm_eval
            section = any(name.startswith(f"{key}.") for name in known)
            assert section or key in known or key == "pretrained", f"{page}: {word}"


def test_the_sample_plan_is_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = next(
        found for found in commands("docs/planning.md") if found[:1] == ["plan"] and found[1:]
    )
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"}, catch_exceptions=False)
    printed = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
    assert printed in blocks("docs/planning.md", "text")


def test_the_card_table_is_what_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of README's table, made again: memory and hours on 1e9 tokens."""
    monkeypatch.chdir(ROOT)
    row = r"^\| ?([^|]*?) \| [^|]*\| \[?(zh-[\w-]+)[^|]*\| (\d+) \| ([\d.]+) GiB \| ([\d.]+) \|$"
    rows = re.findall(row, read("README.md"), re.MULTILINE)
    assert len(rows) == 10
    card = ""
    for named, recipe, micro_batch, gib, hours in rows:
        card = named.lower().replace(" ", "") or card
        arguments = ["plan", f"recipes/{recipe}", f"micro_batch_size={micro_batch}", "epochs=1"]
        arguments += ["--device", card, "--data-tokens", "1e9", "--json"]
        plan = json.loads(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)
        needed = plan["memory"]["needed"]
        assert needed <= plan["device"]["memory"]
        assert f"{needed / 2**30:.1f}" == gib
        assert f"{plan['speed']['seconds'] / 3600:.1f}" == hours


def test_make_and_pip_do_what_the_readme_says() -> None:
    start, plain = blocks("README.md", "sh")[:2]
    assert start.splitlines()[0] == "make demo"
    assert "make test" in blocks("CONTRIBUTING.md", "sh")[0].splitlines()
    extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
    extra = re.search(r"-c (\S+) -e '\.\[(\w+)\]'", plain)
    assert extra and (ROOT / extra[1]).is_file() and extra[2] in extras
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # under `make test` the outer make would have this one print the folders it enters and leaves
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    for target, last in (("demo", "mengya demo"), ("test", "pytest")):
        arguments = ["make", "-n", "--always-make", target]
        done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "--constraint constraints.txt" in done.stdout
        assert done.stdout.strip().endswith(last)


@pytest.mark.slow
def test_the_guides_way_with_own_data(tmp_path: Path) -> None:
    """Tokenizer to chat, LoRA, a folder of one's own and an exam, on a little of the small world."""
    generate(tmp_path / "world", WorldConfig())
    sources = {"text": "pretrain", "chat": "conversations", "pairs": "preferences"}
    for name, file in sources.items():
        lines = (tmp_path / f"world/{file}.jsonl").read_text(encoding="utf-8").splitlines(True)
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "own.jsonl").write_text("".join(lines[:200]), encoding="utf-8")
    (tmp_path / "data/cmmlu").symlink_to(tmp_path / "world/closed_book")
    (tmp_path / "models").mkdir()
    # What stands for a downloaded model is the folder that the first commands make.
    own = tmp_path / "runs/my/pretrain/checkpoints/latest"
    (tmp_path / "models/Qwen3-0.6B").symlink_to(own)
    typed = [b for b in blocks("docs/guide.md", "sh") if "runs/my" in b or "models/" in b]
    typed = [b for b in typed if "data/medicine" not in b]
    assert len(typed) == 4
    for block in typed:
        type_in(block, tmp_path)
    snippet = next(block for block in blocks("docs/guide.md", "python") if "transformers" in block)
    type_in(f"python - <<'EOF'\n{snippet}EOF", tmp_path)
