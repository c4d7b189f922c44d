"""The rules of STYLE.md that a program can check. Each message says what to write in place."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaio_bench import catalogue

ROOT = Path(__file__).resolve().parent.parent
CODE = {".py", ".pyi", ".rs", ".sh", ".h", ".c"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 70
MAX_COLUMNS = 100

# Written apart, so that this file is not found guilty of them.
LEFTOVERS = ["FIX" + "ME", "TO" + "DO", "XX" + "X", "to" + "do!(", "unimple" + "mented!(",
             "db" + "g!(", "NotImplemented" + "Error", "break" + "point("]  # fmt: skip
MACHINE_PATHS = ["/" + "work/", "/" + "root/", "/" + "tmp/wt", "/" + "home/"]

# (pattern, where it is searched, where it is allowed, what to write instead)
BANNED = [
    (
        r"\bInstant::now\b|\bSystemTime::now\b",
        "rust/core/src/",
        ("rust/core/src/clock.rs",),
        "ask the context's clock: the same code runs in virtual time",
    ),
    (
        r"\bFile::(open|create|options)\b|\bOpenOptions\b|\bfs::(read|write|File)\b",
        "rust/core/src/",
        # A key is read when its filter is built, and the black box made, before the run; a
        # replica's store is on disk.
        (
            "rust/core/src/backends/",
            "rust/core/src/formats/",
            "rust/core/src/filters/crypt/key.rs",
            "rust/core/src/black_box.rs",
            # The kernel's account of this process's threads.
            "rust/core/src/usage.rs",
            "rust/core/src/cdp/key.rs",
            "rust/core/src/cdp/store",
            "rust/core/src/cdp/recovery.rs",
            "rust/core/src/cdp/verify.rs",
        ),
        "open files in backends/ or formats/: a filter does its I/O through its context",
    ),
    (
        r"\b(e?println|e?print)!",
        "rust/",
        ("rust/core/examples/", "rust/core/benches/"),
        "return an Error or an event: Python prints",
    ),
    (
        r"\bstd::process::exit\b|\bpanic!\(",
        "rust/",
        ("rust/core/examples/", "rust/core/benches/"),
        "return an Error: one bad file must not end the user's process",
    ),
    (
        r"^\s*print\(",
        "vaio_bench/",
        ("vaio_bench/cli/",),
        "return it: only the command line prints",
    ),
    (
        r"\bsys\.exit\(|\braise SystemExit\b",
        "vaio_bench/",
        # A round is a process of its own.
        ("vaio_bench/cli/", "vaio_bench/round_child.py"),
        "raise InputError or WorkError: the command line maps them to an exit status",
    ),
    (
        r"(?<![.\w])random\.[a-z]\w*\(|^\s*from random import [a-z]"
        r"|\bnp\.random\.(seed|rand|randint|choice)\(",
        "vaio_bench/",
        (),
        "random.Random(seed) or numpy.random.default_rng(seed): a run records its seed",
    ),
    (
        r"^\s*(import requests|from urllib\.request import|import urllib\.request)\b",
        "vaio_bench/",
        (),
        "nothing: the tool makes no connection of its own accord",
    ),
    (
        r"\bplaywright install\b",
        "",
        ("tests/test_tidy.py", "STYLE.md"),
        "the system's chromium: tests download no browser",
    ),
]


def sources() -> list[Path]:
    """Files of the repository, tracked or about to be; all of them outside of git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        skipped = {"target", ".venv", ".git", "reports"}
        paths = [
            path
            for path in ROOT.rglob("*")
            if not skipped & set(path.relative_to(ROOT).parts) and "__pycache__" not in path.parts
        ]
    return sorted(path for path in paths if path.is_file())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


SOURCES = sources()
CODE_FILES = [path for path in SOURCES if path.suffix in CODE]


def text_of(path: Path) -> str | None:
    """The file's text; None for the bundled traces and other binary files."""
    content = path.read_bytes()
    return None if b"\0" in content[:8192] else content.decode("utf-8", errors="replace")


def numbered(path: Path) -> Iterator[tuple[int, str]]:
    yield from enumerate((text_of(path) or "").splitlines(), 1)


def python_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """(name, line, length without the docstring) of every function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                length -= (first.end_lineno or first.lineno) - first.lineno + 1
            yield node.name, node.lineno, length


RUST_FN = re.compile(
    r"^(\s*)(?:pub(?:\([^)]*\))? )?(?:default )?(?:const )?(?:async )?(?:unsafe )?"
    r'(?:extern "[^"]*" )?fn (\w+)'
)


def rust_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """(name, line, length): rustfmt puts a body's last brace below its `fn`."""
    lines = source.splitlines()
    for start, line in enumerate(lines):
        found = RUST_FN.match(line)
        if not found or line.rstrip().endswith(("}", ";")):
            continue
        indent, name = found[1], found[2]
        for end in range(start + 1, len(lines)):
            rest = lines[end].removeprefix(indent)
            if rest == "}" or (rest.startswith(")") and rest.endswith((";", "}"))):
                yield name, start + 1, end - start + 1
                break
        else:
            raise AssertionError(f"line {start + 1}: fn {name} has no end: run `make fmt`")


def without_tests(source: str) -> str:
    """Rust without its unit tests, which are last in a file."""
    return source.split("#[cfg(test)]", maxsplit=1)[0]


def without_comments(line: str, suffix: str) -> str:
    return line.split("//", maxsplit=1)[0] if suffix == ".rs" else line.split("  #", maxsplit=1)[0]


def complain(faults: list[str]) -> None:
    assert not faults, "\n" + "\n".join(faults)


def test_files_are_short() -> None:
    lengths = {name_of(path): len((text_of(path) or "").splitlines()) for path in CODE_FILES}
    complain(
        [
            f"{name}: {length} lines: expected at most {MAX_FILE_LINES}: split it by subject"
            for name, length in lengths.items()
            if length > MAX_FILE_LINES
        ]
    )


def test_lines_are_short() -> None:
    complain(
        [
            f"{name_of(path)}:{number}: {len(line)} columns: expected at most {MAX_COLUMNS}"
            for path in CODE_FILES
            for number, line in numbered(path)
            if len(line) > MAX_COLUMNS
        ]
    )


def test_functions_are_short() -> None:
    finders = {".py": python_functions, ".rs": rust_functions}
    complain(
        [
            f"{name_of(path)}:{line}: {name} has {length} lines: expected at most "
            f"{MAX_FUNCTION_LINES}: give its parts names"
            for path in CODE_FILES
            if path.suffix in finders
            for name, line, length in finders[path.suffix](path.read_text())
            if length > MAX_FUNCTION_LINES
        ]
    )


def test_nothing_is_left_over() -> None:
    complain(
        [
            f"{name_of(path)}:{number}: {word}: finish it, or leave it out"
            for path in CODE_FILES
            for number, line in numbered(path)
            for word in LEFTOVERS
            if word in line
        ]
    )


def test_no_machine_paths() -> None:
    complain(
        [
            f"{name_of(path)}:{number}: {word}: expected a path that holds on any machine"
            for path in SOURCES
            for number, line in numbered(path)
            for word in MACHINE_PATHS
            if re.search(rf"(?<![\w.$}}]){re.escape(word)}", line)
        ]
    )


@pytest.mark.parametrize("rule", BANNED, ids=lambda rule: rule[0])
def test_banned_calls(rule: tuple[str, str, tuple[str, ...], str]) -> None:
    pattern, below, allowed, instead = rule
    faults = []
    for path in CODE_FILES:
        name = name_of(path)
        if not name.startswith(below) or name.startswith(allowed) or path.name == "tests.rs":
            continue
        source = path.read_text()
        lines = (without_tests(source) if path.suffix == ".rs" else source).splitlines()
        faults += [
            f"{name}:{number}: {line.strip()}: {instead}"
            for number, line in enumerate(lines, 1)
            if re.search(pattern, without_comments(line, path.suffix))
        ]
    complain(faults)


def test_no_dead_rust_file() -> None:
    """A file that no `mod` names is not compiled, so that nothing checks it."""
    faults = []
    for crate in ("rust/abi/src", "rust/core/src", "rust/py/src"):
        for path in CODE_FILES:
            name = name_of(path)
            if not name.startswith(crate + "/") or path.name in ("lib.rs", "main.rs"):
                continue
            module = path.parent if path.name == "mod.rs" else path.with_suffix("")
            above = module.parent
            parents = [above / "lib.rs", above / "mod.rs", above.with_suffix(".rs")]
            named = rf"^\s*(pub(\([^)]*\))? )?mod {module.name}\b"
            texts = [parent.read_text() for parent in parents if parent.is_file()]
            if not any(re.search(named, text, re.MULTILINE) for text in texts):
                faults.append(f"{name}: expected `mod {module.name};` in the module above it")
    complain(faults)


def test_no_dead_python_module() -> None:
    """A module that no other names is reached by nothing but its own tests."""
    modules = [path for path in CODE_FILES if name_of(path).startswith("vaio_bench/")]
    texts = {path: path.read_text() for path in modules}
    # A filter in Python is reached by its entry point, as those of other packages.
    texts[ROOT / "pyproject.toml"] = (ROOT / "pyproject.toml").read_text()
    faults = []
    for path in modules:
        dotted = name_of(path).removesuffix(".py").replace("/", ".")
        # Packages, the command line's verbs (listed by name) and analyses' pages are found by
        # folder; `__main__` is for the interpreter.
        if path.suffix != ".py" or path.name in ("__init__.py", "__main__.py"):
            continue
        above, _, name = dotted.rpartition(".")
        named = re.compile(
            rf"\b{re.escape(dotted)}\b|from {re.escape(above)} import [^#]*?\b{name}\b"
            rf"|VERBS[^=]*=[^=]*?\"{name}\"",
            re.DOTALL,
        )
        if not any(named.search(text) for other, text in texts.items() if other != path):
            faults.append(f"{name_of(path)}: expected another module to import it")
    complain(faults)


def test_every_verb_is_listed() -> None:
    from vaio_bench.cli import VERBS

    folder = ROOT / "vaio_bench" / "cli"
    having = {
        path.stem
        for path in folder.glob("*.py")
        if "\ndef register(app: typer.Typer)" in path.read_text()
    }
    assert having == set(VERBS)
    assert len(VERBS) == len(set(VERBS))


def test_every_kind_has_a_page() -> None:
    complain(
        [
            f"{kind.kind} {kind.name}: expected a doc page, its heading and a line of prose first"
            for kind in catalogue.kinds()
            if not kind.page.startswith("# ") or not kind.summary
        ]
    )


def test_every_filter_has_an_example_and_a_test() -> None:
    faults = []
    for name, kind in catalogue.filters().items():
        if f'use = "{name}"' not in kind.page:
            faults.append(f"{name}: expected an example policy in its page")
        if not (ROOT / "tests" / "filters" / f"test_{name}.py").is_file():
            faults.append(f"{name}: expected a test at tests/filters/test_{name}.py")
    complain(faults)


def test_the_places_of_the_architecture_exist() -> None:
    """A row names files; the second and later names of a row may leave the folder out."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    faults = []
    for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE):
        names = re.findall(r"`([^`]+)`", row)
        above = ROOT / Path(names[0]).parent
        for name in names:
            if not any(found for place in (ROOT, above) for found in place.glob(name)):
                faults.append(f"ARCHITECTURE.md: expected {name} to exist")
    complain(faults)


def test_the_walked_filter_is_compiled_as_written() -> None:
    compiled = (ROOT / "rust/core/src/filters/testing/stall.rs").read_text()
    if f"````rust\n{compiled}````" not in (ROOT / "CONTRIBUTING.md").read_text():
        complain(["CONTRIBUTING.md: expected rust/core/src/filters/testing/stall.rs word by word"])


class TestTheChecksThemselves:
    def test_python_function_length_leaves_the_docstring_out(self) -> None:
        source = 'def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n    return a\n'
        assert list(python_functions(source)) == [("f", 1, 4)]

    def test_rust_function_length(self) -> None:
        source = (
            "pub const fn one(a: u8) -> u8 {\n    a\n}\n"
            "impl A {\n"
            "    pub(crate) unsafe fn two(\n        a: u8,\n    ) -> u8\n    where\n"
            "        A: B,\n    {\n        if a {\n        }\n    }\n"
            "    fn declared(\n        a: u8,\n    ) -> u8;\n"
            "    fn short() {}\n"
            "}\n"
        )
        found = [("one", 1, 3), ("two", 5, 9), ("declared", 14, 3)]
        assert list(rust_functions(source)) == found

    def test_comments_and_tests_are_left_out(self) -> None:
        assert "now" not in without_comments("let a = 1; // Instant::now", ".rs")
        assert without_tests("a\n#[cfg(test)]\nmod tests { panic!() }") == "a\n"
