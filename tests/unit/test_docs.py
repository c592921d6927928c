"""The documents say what the code says: links resolve, names exist, generated pages are current."""

from __future__ import annotations

import ast
import difflib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from lbadaptor.contract import headers
from lbadaptor.contract.settings import reference
from lbadaptor.contract.settings.schema import SECTIONS
from monitor.check.checks import CHECKS, SETTINGS
from monitor.contract import orders
from monitor.policy import states

TOP = Path(__file__).parents[2]
REFERENCE = TOP / "docs" / "reference"
PAGES = sorted([*TOP.glob("*.md"), *TOP.glob("docs/**/*.md"), *TOP.glob("tests/**/*.md")])
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""Those that speak of the code as it is now."""
SOURCES = ("lbadaptor", "monitor", "apache", "tests")


def name(page: Path) -> str:
    return str(page.relative_to(TOP))


def of_each(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=name)


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return re.sub(r"^ {4}.*$", "", text, flags=re.M)


def code(page: Path) -> list[str]:
    """The lines of a page's blocks of code, and what stands between backquotes."""
    text = page.read_text()
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```$", text, flags=re.M | re.S)
    indented = re.findall(r"^ {4,}(\S.*)$", text, flags=re.M)
    return [*(line for block in fenced for line in block.splitlines()), *indented, *quoted(page)]


def quoted(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


@cache
def source() -> str:
    """All of the code, Apache's and systemd's configuration too; not this file."""
    files = [file for top in SOURCES for file in TOP.glob(f"{top}/**/*") if file.suffix != ".md"]
    texts = [
        file.read_text("utf-8", "replace") for file in files if file.is_file() and "__pycache__" not in file.parts
    ]
    me = Path(__file__).read_text()
    return "\n".join(text for text in texts if text != me)


@cache
def words() -> frozenset[str]:
    """Of the code and of its files' names."""
    stems = (file.stem for top in SOURCES for file in TOP.glob(f"{top}/**/*.py"))
    return frozenset((*re.findall(r"\w+", source()), *stems))


# Links.


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), flags=re.M)
    heads = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head).replace("`", "").lower() for head in heads]
    return frozenset(re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads)


@of_each(PAGES)
def test_every_link_resolves(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match("[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set[Path](), [TOP / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached and page.suffix == ".md" and page.exists():
            reached.add(page)
            links = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", prose(page))
            todo += [(page.parent / link).resolve() for link in links if ":" not in link]
    assert [name(page) for page in PAGES if TOP / "docs" in page.parents and page not in reached] == []


# Files and names.


@of_each(CURRENT)
def test_every_file_and_folder_named_exists(page: Path) -> None:
    named = [
        word
        for text in code(page)
        for word in re.findall(rf"(?<![\w/.-])(?:{'|'.join(SOURCES)}|docs)/[\w./@*-]*", text)
    ]
    assert [path for path in named if not list(TOP.glob(path.rstrip("/.")))] == []


OF_OTHERS = frozenset(
    ("channel_timeout", "connection_limit", "patch_all", "perf_event_open", "proxy_http_version", "proxy_set_header")
)
"""Names of waitress, gevent, the kernel and nginx that stand in the reference."""


def names_on(page: Path) -> set[str]:
    """With an underscore: settings, variables, functions, keys."""
    return {word for text in quoted(page) for word in re.findall(r"\b[a-z][a-z0-9]*_[a-z0-9_]*[a-z0-9]\b", text)}


@of_each([page for page in CURRENT if page.parent in (TOP, REFERENCE, TOP / "docs" / "design")])
def test_every_name_exists(page: Path) -> None:
    assert sorted(names_on(page) - words() - OF_OTHERS) == []


@of_each(CURRENT)
def test_no_name_is_nearly_a_setting(page: Path) -> None:
    """One that was renamed or mistyped. A framework's own names are on these pages, too."""
    known = [field for struct in SECTIONS.values() for field in struct.__struct_fields__]
    unknown = names_on(page) - words() - OF_OTHERS
    assert {name: near for name in unknown if (near := difflib.get_close_matches(name, known, 1, 0.8))} == {}


@of_each(CURRENT)
def test_every_module_that_is_run_exists(page: Path) -> None:
    named = [run for text in code(page) for run in re.findall(r"-m ((?:lbadaptor|monitor|tests)[\w.]*)", text)]
    paths = [TOP / run.rstrip(".").replace(".", "/") for run in named]
    assert [str(path) for path in paths if not (path.is_dir() or path.with_suffix(".py").exists())] == []


def test_the_tree_of_the_overview_is_the_tree() -> None:
    page = (TOP / "docs" / "design" / "overview.md").read_text()
    told = set(re.findall(r"^    ((?:lbadaptor|monitor)/\S*)  ", page, flags=re.M))
    files = [file for top in ("lbadaptor", "monitor") for file in TOP.glob(f"{top}/**/*") if file.is_file()]
    there = {f"{file.parent.relative_to(TOP)}/" for file in files if "__pycache__" not in file.parts}
    assert told == there


def test_contributing_names_what_is_in_the_file_before_it() -> None:
    """`NAME` in `path/file.py`: the name is there."""
    found = re.findall(r"`(\w+)` in\s+`([\w/]+\.py)`", (TOP / "CONTRIBUTING.md").read_text())
    assert len(found) >= 4
    assert [(word, file) for word, file in found if not re.search(rf"\b{word}\b", (TOP / file).read_text())] == []


# Settings.


@of_each(CURRENT)
def test_every_setting_in_an_example_exists(page: Path) -> None:
    known = {section: set(struct.__struct_fields__) for section, struct in SECTIONS.items()}
    section, wrong = "", []
    for line in page.read_text().splitlines():
        text = line.strip()
        if head := re.fullmatch(r"\[(\w+)\]", text):
            section = head[1] if head[1] in known else ""
        elif section and (row := re.match(r"(\w+) = ", text)):
            wrong += [f"[{section}] {row[1]}"] * (row[1] not in known[section])
        elif text and not text.startswith("#") and not line.startswith(" "):
            section = ""
    for text in quoted(page):
        for where, key in re.findall(r"\[(\w+)\] (\w+)", text):
            if where in known:
                wrong += [f"[{where}] {key}"] * (key not in known[where])
    assert wrong == []


def test_the_reference_says_when_a_change_takes_effect() -> None:
    rows = [line for line in (REFERENCE / "settings.md").read_text().splitlines() if line.startswith("| `")]
    fields = [field for struct in SECTIONS.values() for field in struct.__struct_fields__]
    assert [row.split("`")[1] for row in rows] == fields
    heads = [line for line in (REFERENCE / "settings.md").read_text().splitlines() if line.startswith("| setting")]
    assert heads
    for head in heads:
        assert "| takes effect |" in head
    column = [cell.strip() for cell in heads[0].split("|")].index("takes effect")
    assert all(re.split(r"(?<!\\)\|", row)[column].strip() for row in rows)


# Commands, orders, exit codes, signals.


@cache
def help_of(*command: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", *command, "--help"], cwd=TOP, capture_output=True, text=True, check=True, timeout=60
    )
    return run.stdout


def options(*command: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z-]+", help_of(*command))) - {"--help"}


@cache
def commands() -> tuple[str, ...]:
    """Of lbctl."""
    listed = help_of("monitor.ctl").partition("\nCommands:\n")[2]
    return tuple(re.findall(r"^ {2}([a-z][a-z-]*)(?: |$)", listed, flags=re.M))


def test_lbctl_lists_its_commands() -> None:
    assert {"status", "restart", "demo"} <= set(commands())


def of_lbctl(command: str) -> set[str]:
    return options("monitor.demo") if command == "demo" else options("monitor.ctl", command)


def calls(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every `lbctl COMMAND …` on a page, and its words."""
    for text in code(page):
        for call in re.findall(r"(?<![\w.-])lbctl ([^|;#`)>]*)", text):
            given = call.split()
            while given and given[0].startswith("-"):
                given = given[2:] if given[0] in ("--config", "--socket") else given[1:]
            if given:
                yield given[0], given[1:]


@of_each(CURRENT)
def test_every_command_of_lbctl_exists(page: Path) -> None:
    wrong = []
    for command, given in calls(page):
        if not re.fullmatch("[a-z-]+", command):
            continue  # COMMAND, as a placeholder, or a text that lbctl prints
        if command not in commands():
            wrong.append(command)
        else:
            named = {word.partition("=")[0].strip("[]") for word in given if word.strip("[").startswith("--")}
            wrong += [f"{command} {option}" for option in named - of_lbctl(command)]
    assert wrong == []


def test_the_reference_has_every_command_and_option_of_lbctl() -> None:
    page = (REFERENCE / "lbctl.md").read_text()
    assert [command for command in commands() if f"`{command}" not in page] == []
    told = set(re.findall(r"--[a-z][a-z-]+", page))
    known = options("monitor.ctl").union(*map(of_lbctl, commands()))
    assert (told - known, known - told) == ({"--unix-socket", "--help"}, set())


@of_each(CURRENT)
def test_every_option_of_lbmonitor_exists(page: Path) -> None:
    named = {option for text in code(page) for option in re.findall(r"lbmonitor (--[a-z-]+)", text)}
    assert named - options("monitor") - {"--prepare"} == set()  # which lbmonitor asks itself


def statuses() -> set[int]:
    """Exit statuses that the code names: constants whose docstring says so."""
    found = set()
    for top in ("lbadaptor", "monitor"):
        for file in TOP.glob(f"{top}/**/*.py"):
            body = ast.parse(file.read_text()).body
            for line, then in pairwise(body):
                if not isinstance(line, ast.Assign) or not isinstance(then, ast.Expr):
                    continue
                value, about = ast.unparse(line.value), ast.unparse(then)
                if value.isdigit() and "exit status" in about.lower():
                    found.add(int(value))
    return found


def test_the_reference_has_every_exit_status() -> None:
    page = (REFERENCE / "exit-codes-and-signals.md").read_text()
    told = {int(status) for status in re.findall(r"^\| (\d+) \|", page, flags=re.M)}
    assert statuses() >= {1, 2, 3, 4, 130}
    assert told == statuses() | {0}


@of_each(CURRENT)
def test_every_signal_exists(page: Path) -> None:
    named = set(re.findall(r"\bSIG[A-Z0-9]+\b", page.read_text()))
    assert [one for one in named if not hasattr(signal, one) or one not in words()] == []


# Headers.

OUR_HEADERS = set(re.findall(r'"(LB-[\w-]*\w)', Path(headers.__file__).read_text()))


@of_each(CURRENT)
def test_every_header_exists(page: Path) -> None:
    named = set(re.findall(r"\bLB-[A-Z][A-Za-z-]*[a-z]\b", page.read_text())) - {"LB-Var"}
    assert named - OUR_HEADERS == set()


def test_the_reference_has_every_header() -> None:
    page = (REFERENCE / "headers.md").read_text()
    assert len(OUR_HEADERS) > 15
    assert [header for header in OUR_HEADERS if f"`{header}" not in page] == []
    assert [refusal.value for refusal in headers.Refusal if f"`{refusal.value}`" not in page] == []


# Log lines.


@cache
def texts_of_code() -> tuple[str, ...]:
    """Every text in the code, with … for what differs."""
    found = []
    for top in ("lbadaptor", "monitor"):
        for file in TOP.glob(f"{top}/**/*.py"):
            tree = ast.parse(file.read_text())
            docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                    found.append(re.sub(r"%[-\d.]*[sdgrfx]", "…", node.value))
                elif isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                    found.append("".join(map(str, parts)))
    return tuple(found)


def in_order(parts: list[str], text: str) -> bool:
    """Whether all parts stand in the text, one after the other."""
    place = 0
    for part in parts:
        place = text.find(part, place) + len(part)
        if place < len(part):
            return False
    return True


def is_part_of(row: str, text: str) -> bool:
    """Whether a text of the code says what a page tells: a part of it, or, with names in its places, all of it."""
    parts = text.split("…")
    whole = len("".join(parts)) > 15 and row.startswith(parts[0]) and row.endswith(parts[-1])
    return in_order(row.split("…"), text) or (whole and in_order(parts, row))


def test_every_log_line_of_the_reference_is_in_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (REFERENCE / "log-lines.md").read_text(), flags=re.M)
    assert len(rows) > 20
    assert [row for row in rows if not any(is_part_of(row, text) for text in texts_of_code())] == []


# Generated pages.


def test_the_reference_has_every_check_of_the_doctor() -> None:
    page = (REFERENCE / "doctor.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)`( †)? \| ", page, flags=re.M)
    assert rows == [
        (check.name, " †" if check.live else "")
        for subject in dict.fromkeys(check.subject for check in CHECKS)
        for check in (SETTINGS, *CHECKS)
        if check.subject == subject
    ]
    assert re.findall(r"^## (.+)$", page, flags=re.M)[:-1] == [*dict.fromkeys(check.subject for check in CHECKS)]


def test_the_texts_of_the_doctor_are_those_of_the_code() -> None:
    page = (REFERENCE / "doctor.md").read_text()
    rows = re.findall(r"^\| `[\w-]+`(?: †)? \| (.+) \| .+ \|$", page, flags=re.M)
    told = [text for row in rows for text in re.findall(r"`([^`]+)`", row) if "…" in text or text.count(" ") > 3]
    assert len(told) > 40
    assert [text for text in told if not any(is_part_of(text, one) for one in texts_of_code())] == []


@pytest.mark.parametrize(
    ("page", "text"), [("settings.md", reference.page()), ("states.md", states.page()), ("orders.md", orders.page())]
)
def test_generated_page_is_current(page: str, text: str) -> None:
    assert (REFERENCE / page).read_text() == text, "run: make docs"
