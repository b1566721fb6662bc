"""The hostile responses of `tests/data`, and what counts as a live tag, written down independently of `judge.fence`."""

import json
import re
import unicodedata

from tests.paths import DATA

FILE = DATA / "hostile_responses.jsonl"
CASES: dict[str, str] = {
    case["name"]: case["text"] for line in FILE.read_text().splitlines() for case in [json.loads(line)]
}
_TAG = re.compile(r"<\s*/?\s*(?:query|response|score|faithful|think)[^<>]*>?", re.IGNORECASE)


def live_tags(text: str) -> list[str]:
    """Everything that a parser, or a tokenizer that folds Unicode and drops invisible characters, could take for a tag."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) not in ("Cf", "Mn"))
    return _TAG.findall(seen)
