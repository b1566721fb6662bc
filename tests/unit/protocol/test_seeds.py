"""Seed files: bad lines are counted with their number, the rest is read."""

import json
from pathlib import Path

import pytest

from protocol.errors import UserError
from protocol.seeds import read_seeds


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "seeds.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_bad_lines_are_quarantined_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"prompt": "fix a bike", "category": "benign"}',
        "not json",
        '{"prompt": "x", "category": "neutral"}',
        "",
        '{"prompt": "", "category": "benign"}',
        '{"prompt": "fix a bike", "category": "benign"}',
        "[1]",
        '{"prompt": "x \\ud800", "category": "benign"}',
        "[" * 100_000,
        '{"prompt": "x", "category": ["benign"]}',
        '{"prompt": "open a safe", "category": "harmful"}',
    )
    seeds, bad = read_seeds(path, "seeds.train")
    assert [(s.text, s.category) for s in seeds] == [("fix a bike", "benign"), ("open a safe", "harmful")]
    assert [(b.number, b.reason) for b in bad] == [
        (2, "no JSON"),
        (3, 'category "neutral" is neither of harmful, benign'),
        (5, "no text in `prompt`"),
        (6, "repeats an earlier line"),
        (7, "no JSON object"),
        (8, "text that is no Unicode (a lone surrogate)"),
        (9, "no JSON"),
        (10, 'category ["benign"] is neither of harmful, benign'),
    ]


@pytest.mark.parametrize("lines", [[], ["nonsense", "{}"]])
def test_a_file_without_a_seed_is_the_users_error(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(UserError, match=r"seeds\.train: .* has no seed in it"):
        read_seeds(write(tmp_path, *lines), "seeds.train")


def test_a_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seeds\.train: .* does not exist"):
        read_seeds(tmp_path / "none.jsonl", "seeds.train")


def seed_line(prompt: str, category: str = "benign") -> str:
    return json.dumps({"prompt": prompt, "category": category})


def test_a_byte_order_mark_is_no_part_of_a_seed_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "seeds.jsonl"
    first, second = (f"\ufeff{seed_line(text)}\r\n".encode() for text in ("fix a bike", "open a safe"))
    path.write_bytes(first + second)  # as `cat a.jsonl b.jsonl` joins two files of Windows
    seeds, bad = read_seeds(path, "seeds.train")
    assert ([s.text for s in seeds], bad) == (["fix a bike", "open a safe"], [])


def test_repeats_that_differ_in_outer_white_space_are_repeats(tmp_path: Path) -> None:
    outer = ["fix a bike", " fix a bike", "fix a bike\n", "\u200bfix a bike\ufeff", "\u00a0fix a bike \u200b "]
    seeds, bad = read_seeds(write(tmp_path, *map(seed_line, outer), seed_line("fix  a bike")), "seeds.train")
    assert [s.text for s in seeds] == ["fix a bike", "fix  a bike"]
    assert [(b.number, b.reason) for b in bad] == [(n, "repeats an earlier line") for n in (2, 3, 4, 5)]


def test_a_prompt_of_invisible_characters_has_no_text(tmp_path: Path) -> None:
    invisible = ["\u200b\u200d", "\ufe0f", "\u3164", "\u2800 \u2800", "\u00ad\u2060", "\x00", "\u0301", "\U000e0041"]
    seeds, bad = read_seeds(write(tmp_path, *map(seed_line, invisible), seed_line("\u2764\ufe0f")), "seeds.train")
    assert [s.text for s in seeds] == ["\u2764\ufe0f"], "what stands around a text is not taken out of it"
    assert [b.reason for b in bad] == ["no text in `prompt`"] * len(invisible)


def test_a_field_that_stands_twice_in_a_line_is_a_bad_line(tmp_path: Path) -> None:
    twice = '{"prompt": "fix a bike", "category": "harmful", "category": "benign"}'
    _, bad = read_seeds(write(tmp_path, twice, seed_line("open a safe")), "seeds.train")
    assert [b.reason for b in bad] == ['field "category" stands in it twice']


def test_a_path_that_is_none_is_the_users_error() -> None:
    with pytest.raises(UserError, match=r"seeds\.train: .* cannot be read \(ValueError\)"):
        read_seeds(Path("a\0b"), "seeds.train")
