"""A short digest of a judge's folder, so that two folders of one name are two judges: in verdicts, rows and the cache.

It covers what changes verdicts (config, tokenizer and chat template; the weights' file names and sizes) and samples of the weights:
two models trained from one base differ in nothing but these. Some 16 reads a file, whatever its size. Where the folder lies, when
its files were written and what else is in it have no part, so it survives a move or a copy.

Of weights that differ in a few tensors only, the samples may see nothing: such judges need names of their own.
"""

import hashlib
from pathlib import Path

CHARS = 8  # of hexadecimal: among a thousand judges of one name two are alike once in ten thousand times
SAMPLES, SAMPLE_BYTES = 16, 4096  # of each file of weights, evenly spread, from its first to its last byte
WHOLE = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def digest_model(folder: Path) -> str:
    """`CHARS` hexadecimal digits.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=CHARS // 2)
    for name in WHOLE:
        if (file := folder / name).is_file():
            content = file.read_bytes()
            digest.update(f"{name} {len(content)}\n".encode() + content)
    for file in sorted([*folder.glob("*model*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        last = max(0, size - SAMPLE_BYTES)
        with file.open("rb") as f:
            for at in range(SAMPLES):
                f.seek(last * at // (SAMPLES - 1))
                digest.update(f.read(SAMPLE_BYTES))
    return digest.hexdigest()
