"""Every example of docs/PROTOCOL.md, run against a daemon."""

import json
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/PROTOCOL.md"
METHODS = Path(__file__).resolve().parents[2] / "control/methods.c"

_KINDS = {
    "text": lambda value: isinstance(value, str),
    "number": lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool)
    ),
    "bool": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "any": lambda value: True,
    "task": lambda value: (
        isinstance(value, str) and re.fullmatch(r"[0-9a-f-]{36}", value)
    ),
}


def examples():
    """[(line in the document, [(arrow, text)])], one for each block."""
    found, block, start = [], None, 0
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if line == "```jsonrpc":
            block, start = [], number
        elif line == "```" and block is not None:
            found.append((start, block))
            block = None
        elif block is not None:
            arrow, _, text = line.partition(" ")
            assert arrow in ("-->", "<--", "<-*"), f"line {number}: {line}"
            block.append((arrow, text))
    return found


def difference(wanted, got, where="", tasks=None):
    """Why `got` is not as the document has it, or None. Notes tasks' ids."""
    if isinstance(wanted, str) and re.fullmatch(r"<[a-z|]+>", wanted):
        kinds = wanted[1:-1].split("|")
        if not any(_KINDS[kind](got) for kind in kinds):
            return f"{where}: {got!r} is not {wanted}"
        if "task" in kinds and tasks is not None:
            tasks.append(got)
        return None
    if isinstance(wanted, dict) and isinstance(got, dict):
        return _object_difference(wanted, got, where, tasks)
    if isinstance(wanted, list) and isinstance(got, list):
        if wanted and wanted[-1] == "...":
            model = wanted[-2]
            wanted = wanted[:-2] + [model] * (len(got) - len(wanted) + 2)
        if len(wanted) != len(got):
            return f"{where}: {len(got)} elements, not {len(wanted)}: {got}"
        pairs = enumerate(zip(wanted, got))
        found = (difference(w, g, f"{where}[{i}]", tasks) for i, (w, g) in pairs)
        return next(filter(None, found), None)
    if type(wanted) is not type(got) or wanted != got:
        return f"{where}: {got!r}, not {wanted!r}"
    return None


def _object_difference(wanted, got, where, tasks):
    names = set(wanted) - {"..."}
    if names - set(got):
        return f"{where}: no {sorted(names - set(got))} in {got}"
    if "..." not in wanted and set(got) - names:
        return f"{where}: {sorted(set(got) - names)} is not documented"
    found = (
        difference(wanted[name], got[name], f"{where}.{name}", tasks)
        for name in wanted
        if name != "..."
    )
    return next(filter(None, found), None)


def run_block(connection, block, tasks):
    """Plays one block; fails at the first line that differs."""
    lines = connection.makefile("rb")
    repeated = None
    for arrow, text in block:
        if arrow == "-->":
            if '"<task>"' in text:
                text = text.replace("<task>", tasks[-1])
            connection.sendall(text.encode() + b"\n")
        elif arrow == "<-*":
            repeated = json.loads(text)
        else:
            wanted = json.loads(text)
            got = json.loads(lines.readline())
            while repeated is not None and "id" not in got:
                assert difference(repeated, got) is None, difference(repeated, got)
                got = json.loads(lines.readline())
            repeated = None
            why = difference(wanted, got, tasks=tasks)
            assert why is None, f"{text}\n{why}"


@pytest.fixture
def shop(mounted):
    """A mount with what the document's examples are about."""
    for shard in ("orders", "users"):
        folder = mounted.mount / "shop" / shard
        folder.mkdir(parents=True)
        (folder / "data").write_bytes(b"0123456789abcdef" * 4096)
    return mounted


@pytest.mark.req("E1", "E2", "E5", "L6", "P5")
def test_the_examples_are_what_happens(shop):
    tasks = []
    for line, block in examples():
        with shop.connect() as connection:
            try:
                run_block(connection, block, tasks)
            except AssertionError as error:
                raise AssertionError(f"{DOCUMENT.name}:{line}: {error}") from None
    assert shop.process.wait() == 0


def test_every_method_is_documented():
    table = METHODS.read_text(encoding="utf-8").split("methods[] = {")[1]
    methods = set(re.findall(r"method_(\w+)", table.split("};")[0]))
    text = DOCUMENT.read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) - {"Mistakes"}
    assert headings == methods
    shown = set(re.findall(r'--> .*?"method": "(\w+)"', text))
    assert methods <= shown
