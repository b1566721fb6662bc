"""Digests of several texts, such that no two ways to divide a text into parts give the same."""

import hashlib
from collections.abc import Iterable


def hash_texts(texts: Iterable[str]) -> "hashlib.blake2b":
    """A 16-byte BLAKE2b hash over the texts, each with its length before it. Lone surrogates are hashed, too."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest
