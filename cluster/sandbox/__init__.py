"""The embedded sandbox: tiny base players of the world in `judge.world`, pre-trained on the CPU and cached."""

from cluster.sandbox.cache import SandboxPaths, ensure_sandbox

__all__ = ["SandboxPaths", "ensure_sandbox"]
