"""Which requirement is shown by which test.

Integration tests name them with @pytest.mark.req("L3"), unit tests with a
comment `/* req: L3 L5 */` above the test. The list is tests/requirements.txt.
"""

import re
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[2]
_COMMENT = re.compile(r"\breq:([ ,A-Z0-9]+)")
_TEST = re.compile(r"^TEST\((\w+)\)", re.MULTILINE)


def requirements():
    """{number: text}, in the order of the list."""
    lines = (_TESTS / "requirements.txt").read_text().splitlines()
    pairs = (line.split(" ", 1) for line in lines if line and line[0] != "#")
    return dict(pairs)


def shown_by_unit_tests():
    """{number: [test, ...]}; a comment counts for the next test below it."""
    shown = {}
    for path in sorted(_TESTS.glob("unit/test_*.c")):
        text = path.read_text()
        for comment in _COMMENT.finditer(text):
            test = _TEST.search(text, comment.end())
            for number in comment[1].replace(",", " ").split() if test else ():
                shown.setdefault(number, []).append(f"{path.stem}:{test[1]}")
    return shown


def report(shown):
    """Lines that say which requirements no test shows."""
    known = requirements()
    unknown = sorted(shown.keys() - known.keys())
    missing = [number for number in known if number not in shown]
    lines = [f"{len(known) - len(missing)} of {len(known)} requirements are shown"]
    lines += [f"unknown number {number}: {shown[number][0]}" for number in unknown]
    if missing:
        lines.append("shown by no test that ran and passed:")
        lines += [f"  {number:4}{known[number]}" for number in missing]
    return lines
