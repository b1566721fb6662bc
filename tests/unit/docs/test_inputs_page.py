"""docs/inputs.md names a test for each report, and every test that it names is there."""

import re

from tests.paths import DOCS, ROOT

ROWS = [
    line for line in (DOCS / "inputs.md").read_text().split("## By report")[1].splitlines() if line.startswith("| ")
]


def test_every_named_test_exists() -> None:
    assert len(ROWS) > 20
    for row in ROWS[1:]:
        if row.endswith("| the same |"):
            continue
        file = None
        named = re.findall(r"`([\w/]+\.py)?(?:::)?(test_\w+)?`", row.rsplit("|", 2)[1])
        assert named, row
        for path, test in named:
            if path:
                base = ROOT if path.startswith("tests/") else ROOT / "tests" / "unit"
                file = base / path
                assert file.is_file(), path
            assert file is not None, row
            if test:
                assert f"def {test}(" in file.read_text(), test
