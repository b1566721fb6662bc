"""Digests of an engine's parameters, taken where they lie: on a GPU no byte is copied to the host.

To be compared with those of another load of the same version, on the same kind of device: a GPU's are sums, because
a sum is what a GPU is fast at; a CPU's are xxh3.

`sums` of words x_i (64 bits) is (sum x_i a_i, sum x_i b_i) mod 2^64, with odd numbers a_i and b_i that differ from place to place.
A changed word changes both, since an odd number has an inverse; words that change places do, since their factors differ. Sums mod
2^64 do not depend on the order of summation, so the digest is the same however the work is split.
"""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from protocol.packed import checksum

BLOCK = 1 << 22  # words at once: 32 MiB, and as much again for each of their products
THREADS = 4  # more do not read faster
_MASK = (1 << 64) - 1
_STEPS = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)  # odd; of splitmix64 and of Steele and Vigna's table


def digests(parameters: Iterable[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """A digest of each parameter's bytes, by name."""
    named = list(parameters)
    if any(parameter.device.type != "cpu" for _, parameter in named):
        return _sum_all(named)
    return _hash_all(named)


def sums(parameter: torch.Tensor) -> torch.Tensor:
    """The two sums of one parameter's bytes, int64 (2,), on its device. What lacks to a whole word is filled with zeros."""
    flat = parameter.detach().contiguous().view(-1).view(torch.uint8)
    lacks = -flat.numel() % 8
    if lacks or flat.data_ptr() % 8:
        flat = torch.cat([flat, flat.new_zeros(lacks)])
    words = flat.view(torch.int64)
    total = torch.zeros(2, dtype=torch.int64, device=words.device)
    for begin in range(0, len(words), BLOCK):
        block = words[begin : begin + BLOCK]
        places = torch.arange(begin + 1, begin + 1 + len(block), dtype=torch.int64, device=words.device)
        for k, step in enumerate(_STEPS):
            total[k] += (block * _factors(places, step)).sum()
    return total


def _factors(places: torch.Tensor, step: int) -> torch.Tensor:
    """An odd number for each place, 64 bits well mixed: splitmix64's first rounds."""
    mixed = places * _signed(step)
    mixed = (mixed ^ _shift(mixed, 30)) * _signed(0xBF58476D1CE4E5B9)
    return (mixed ^ _shift(mixed, 27)) | 1


def _shift(words: torch.Tensor, by: int) -> torch.Tensor:
    """To the right, with zeros from the left; torch's own shift keeps the sign."""
    return (words >> by) & (_MASK >> by)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _sum_all(named: Sequence[tuple[str, torch.Tensor]]) -> dict[str, str]:
    found = torch.stack([sums(parameter) for _, parameter in named]).cpu()  # one wait for the device
    return {name: f"{int(a) & _MASK:016x}{int(b) & _MASK:016x}" for (name, _), (a, b) in zip(named, found, strict=True)}


def _hash_all(named: Sequence[tuple[str, torch.Tensor]]) -> dict[str, str]:
    """In threads: generation stands still meanwhile, so the cores are free; vLLM has bound this process to one of them."""
    cores = os.sched_getaffinity(os.getppid())

    def begin() -> Any:
        os.sched_setaffinity(0, cores)  # of this thread alone

    def hash_one(pair: tuple[str, torch.Tensor]) -> tuple[str, str]:
        name, parameter = pair
        return name, checksum(parameter.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    with ThreadPoolExecutor(min(THREADS, len(cores)), "digests", begin) as threads:
        return dict(threads.map(hash_one, named))
