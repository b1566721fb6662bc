"""Recipe files: YAML and `key=value` overrides in, a checked `Recipe` out, and back to YAML for the run directory.

A recipe that begins with `extends: other.yaml` (a path beside its own file) says only what differs from that one: sections are
merged key by key, values and lists replace the base's. `extends` is gone once the file is read; the schema does not know it.

A `~` at the beginning of a path is the person's home, whichever key it is given with.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.inputs.home import expand_home
from cluster.inputs.yaml_text import BadYaml, parse_yaml
from protocol.errors import UserError
from protocol.recipe import SANDBOX, Recipe, parse_recipe

PATHS = (  # every key that may hold a path
    "models.attacker.path",
    "models.defender.path",
    "seeds.train",
    "seeds.heldout",
    "run.dir",
    "judge.model",
    "judge.rubrics",
    "judge.probe.file",
    "learners.attacker.sft.path",
    "learners.defender.sft.path",
    "observe.sinks.mlflow.tracking_uri",
)
SMALL_FILES = (  # those of them that hold a run's own texts
    "seeds.train",
    "seeds.heldout",
    "judge.probe.file",
    "learners.attacker.sft.path",
    "learners.defender.sft.path",
)
NAMES = {"judge.rubrics": ("standard",)}  # by key: what is a name and no path, besides `sandbox`
QUOTED = "\"'|>&!*"  # what begins a YAML text that is not taken as it stands


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file and applies overrides of the form `learners.defender.lr=1e-5`, the last one winning.

    Raises:
        UserError: a file is missing or no YAML mapping, files extend each other in a circle, or a value does not fit the schema.
    """
    values = _read(expand_home(path), ())
    for override in overrides:
        _apply(values, override)
    _change_paths(values, _written_out)
    return parse_recipe(values)


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file's values over those of the files that it extends. `above` are the files that led here, outermost first."""
    named = f"recipe: {path}" if not above else f"recipe: {above[-1]}: extends {path}, which"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as e:  # ValueError: no UTF-8, or a NUL in the path
        raise UserError(f"{named} cannot be read ({type(e).__name__}); give the path of a YAML file") from None
    try:
        values = parse_yaml(text)
    except BadYaml as e:
        at = "" if e.line is None else f" line {e.line}"
        raise UserError(f"recipe: {path}{at} {e}") from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(
            f"recipe: {path} holds a {type(values).__name__}, not a mapping of sections; see deploy/recipes"
        )
    values = _copy_sections(values)
    if "extends" not in values:
        return values
    base = values.pop("extends")
    if not isinstance(base, str) or not base or "\0" in base:
        raise UserError(f"recipe: {path}: extends: {base!r} is no path; name one YAML file beside this one")
    below, chain = path.parent / _written_out("extends", base), (*above, path)
    if below.resolve() in [p.resolve() for p in chain]:
        circle = " -> ".join(p.name for p in (*chain, below))
        raise UserError(f"recipe: {path}: extends: {base} closes a circle ({circle}); let one of them extend nothing")
    return _merge(_read(below, chain), values)


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Sections key by key; where either is no section, `over` wins whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _copy_sections(value: Any) -> Any:
    """The same with no mapping shared between two places, as YAML's aliases leave them: an override changes one place."""
    return {k: _copy_sections(v) for k, v in value.items()} if isinstance(value, dict) else value


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: no key=value; write it as learners.defender.lr=1e-5")
    *parents, last = key.strip().split(".")
    at = values
    for parent in parents:
        below = at.setdefault(parent, {})
        if not isinstance(below, dict):
            raise UserError(
                f"--set {override}: {parent} is a value, not a section; check the key against deploy/recipes"
            )
        at = below
    try:
        at[last] = parse_yaml(text)
    except BadYaml as e:
        what = "is no YAML value; quote it" if e.unreadable else str(e)
        raise UserError(f"--set {override}: {text!r} {what}") from None
    if isinstance(at[last], str):
        # " #" begins a comment in YAML, and is part of a file's name here.
        at[last] = text.strip() if " #" in text and text.strip()[0] not in QUOTED else _number(at[last])


def _number(text: str) -> str | float:
    """YAML 1.1 reads 1e-5 (without a dot) as text; people write it, so it is a number here."""
    try:
        return float(text) if "e" in text.lower() and text[:1] in "+-.0123456789" else text
    except ValueError:
        return text


def _change_paths(values: dict[str, Any], change: Callable[[str, str], str]) -> None:
    """Replaces every path by `change(key, path)`. What is of another type, or a name, is left alone."""
    for key in PATHS:
        *parents, last = key.split(".")
        at: Any = values
        for parent in parents:
            at = at.get(parent) if isinstance(at, dict) else None
        if isinstance(at, dict) and isinstance(at.get(last), str) and at[last] not in (SANDBOX, *NAMES.get(key, ())):
            at[last] = change(key, at[last])


def _written_out(key: str, path: str) -> str:
    if "\0" in path:
        raise UserError(f"{key}: {path!r} holds a NUL character and is no path; correct it")
    return str(expand_home(path, key)) if path.startswith("~") else path


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe as a run keeps it: it can be resumed from any folder."""
    values = recipe.model_dump(mode="json")
    _change_paths(values, _absolute)
    return parse_recipe(values)


def _absolute(key: str, path: str) -> str:
    if key.endswith("_uri") and ":" in path:
        return path
    return str(Path(path).expanduser().resolve())


def file_values(recipe: Recipe) -> dict[str, str]:
    """The paths of `SMALL_FILES` that a recipe names, by key."""
    found: dict[str, str] = {}

    def note(key: str, path: str) -> str:
        if key in SMALL_FILES:
            found[key] = path
        return path

    _change_paths(recipe.model_dump(mode="json"), note)
    return found


def set_files(recipe: Recipe, files: Mapping[str, str]) -> Recipe:
    """The recipe with other paths under these keys."""
    values = recipe.model_dump(mode="json")
    _change_paths(values, lambda key, path: files.get(key, path))
    return parse_recipe(values)


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML: what `runs/NAME/recipe.yaml` holds and `--resume` reads."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    return text
