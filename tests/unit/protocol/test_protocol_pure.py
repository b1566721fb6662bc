"""The contract stays light: importing it must not load the heavy packages, nor anything of ours beside it."""

import subprocess
import sys


def test_importing_protocol_loads_no_heavy_package() -> None:
    code = (
        "import pkgutil, sys, importlib, protocol\n"
        "for m in pkgutil.walk_packages(protocol.__path__, 'protocol.'): importlib.import_module(m.name)\n"
        "roots = {m.split('.')[0] for m in sys.modules}\n"
        "print(sorted(roots & {'torch','ray','vllm','deepspeed','transformers','judge','actors','learners','cluster'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.strip() == "[]"
