"""The fence: whatever a text holds, its block has one live opening and one live closing tag, and the text none."""

import re
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from judge.fence import fence, neutralise, nonce_for, tags
from tests.paths import DATA
from tests.unit.hostile import CASES, live_tags

SPECIAL = [
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|end_of_text|>", "<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|return|>", "<｜end▁of▁sentence｜>"),
    *("<｜begin▁of▁sentence｜>", "<｜Assistant｜>", "<s>", "</s>", "<<SYS>>", "<</SYS>>", "<bos>", "<eos>", "<pad>"),
    *(
        "<start_of_turn>",
        "<end_of_turn>",
        "[INST]",
        "[/INST]",
        "[/SYSTEM_PROMPT]",
        "[TOOL_CALLS]",
        "[THINK]",
        "[/THINK]",
    ),
    *("[AVAILABLE_TOOLS]", "<think>", "</think>"),
    # What no list of names would hold: forms of control tokens, from tokenizers of many families.
    *("<EOS_TOKEN>", "<BOS_TOKEN>", "<PAD_TOKEN>", "<extra_id_0>", "<extra_id_99>", "<tool_call>", "</tool_call>"),
    *("<tool_response>", "</tool_response>", "<unused7>", "<reserved_3>", "<reserved12>", "<0x0A>", "<sop>", "<eop>"),
    *("<turn|>", "<|turn>", "<tool_call|>", "<fim_prefix>", "<fim-middle>", "<file_sep>", "<repo_name>", "<eot>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<end_of_utterance>", "<special_42>", "[gMASK]"),
    *("<EXTRA_TOKEN_1>", "<im_start>", "<im_end>", "<assistant_end>", "<vision_start>", "<mask>", "<cls>", "<sep>"),
]

# Texts made of what an attacker would use, so that random ones are hostile.
BITS = ["\u200b", "\u2060", "\u00ad", "\u0336", "im_end|>", "s>", "INST]", "3f9c21", "10", "a"]
NAMES = ["query", "response", "response_A", "RESPONSE_B", "score_A", "score", "faithful", "think", "ſcore", "ｓcore"]
PIECES = st.sampled_from([*"<>/\\[]|‹＜﹤ \n\t_", *BITS, *NAMES, *SPECIAL])
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=30).map("".join))


@given(TEXTS, st.sampled_from([None, "3f9c21"]), st.sampled_from(["query", "response", "response_A", "response_B"]))
@settings(max_examples=400)
def test_a_block_has_its_two_live_tags_and_the_text_has_none(text: str, nonce: str | None, name: str) -> None:
    block, (opening, closing) = fence(name, text, nonce), tags(name, nonce)
    assert live_tags(block) == [opening, closing]
    assert block.startswith(opening) and block.endswith(closing)
    assert live_tags(neutralise(text)) == []


@given(TEXTS)
@settings(max_examples=400)
def test_only_brackets_change(text: str) -> None:
    changed = neutralise(text)
    assert len(changed) == len(text)
    for before, after in zip(text, changed, strict=True):
        assert before == after or (unicodedata.normalize("NFKC", before), after) in (("<", "‹"), ("[", "⟦"))


@given(TEXTS)
@settings(max_examples=200)
def test_disarming_twice_changes_nothing_more(text: str) -> None:
    assert neutralise(neutralise(text)) == neutralise(text)


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d: x = vector<int>() # <b>bold</b> & x << 2 </div>",
        "a[0] = b[INSTANCE]; see [1] and [thinking]",
        "the user's query, the response, a score of 3 > 2, think twice",
        "std::vector<size_t> v; map<uint64_t, my_type> m; Array<my_type> a; optional<point_2d>",
        "#include <sys/types.h>, #include <stdio.h>; <div class='user_name'>; <my-element>; <h1>, <b>, <image>",
        "ssh <user>@<host>; usage: tool <file> [options]; mask = x[mask]; y[pad], z[sep], w[start_index]",
        "if a<b and c>d; List<String>, Map<Key, Value>; <=> ; <- ; <3 ; <start_t>; <0xdeadbeef>",
        "größer < 3, 体温＜37度, ‹Zitat›, [Übung]",
    ],
)
def test_code_and_prose_stay_as_they_are(text: str) -> None:
    assert neutralise(text) == text


def special_tokenizer() -> Tokenizer:
    """Every byte, and the special tokens of several chat templates."""
    letters = {letter: k for k, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


TOKENIZER = special_tokenizer()
SPECIAL_IDS = {TOKENIZER.token_to_id(token) for token in SPECIAL}


def special_ids(text: str) -> list[int]:
    return [token for token in TOKENIZER.encode(text).ids if token in SPECIAL_IDS]


def test_the_tokenizer_of_this_test_knows_the_special_tokens() -> None:
    assert len(special_ids("".join(SPECIAL))) == len(SPECIAL)


@pytest.mark.parametrize("name", CASES)
def test_no_hostile_text_becomes_a_special_token(name: str) -> None:
    assert special_ids(fence("response_A", CASES[name], "3f9c21")) == []


@given(TEXTS)
@settings(max_examples=200)
def test_no_text_becomes_a_special_token(text: str) -> None:
    assert special_ids(neutralise(text)) == []


def test_a_nonce_is_in_no_text_and_both_orders_share_it() -> None:
    nonce = nonce_for("q", ["one", "two"])
    assert re.fullmatch("[0-9a-f]{6}", nonce)
    assert nonce_for("q", ["two", "one"]) == nonce
    assert nonce_for("q", ["one", "tw"]) != nonce and nonce_for("qo", ["ne", "two"]) != nonce
    assert nonce_for("q \ud800", ["lone surrogate"])


@pytest.mark.parametrize("filler", ["<", "</", "[/", "<\u200b", "<|", "< score "])
def test_long_runs_do_not_hold_the_judge_up(filler: str) -> None:
    began = time.perf_counter()
    neutralise(filler * 100_000)
    assert time.perf_counter() - began < 10.0  # a second at most, where quadratic time would be hours


def test_the_file_of_hostile_cases_has_at_least_fifty() -> None:
    assert len(CASES) >= 50
    assert (DATA / "hostile_responses.jsonl").read_bytes().isascii()
