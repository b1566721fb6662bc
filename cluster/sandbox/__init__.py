"""The embedded sandbox: tiny base players of the world in `world` and a judge of it, trained on the CPU and cached."""

from cluster.sandbox.cache import SandboxPaths, ensure_sandbox
from cluster.sandbox.judge_cache import ensure_sandbox_judge

__all__ = ["SandboxPaths", "ensure_sandbox", "ensure_sandbox_judge"]
