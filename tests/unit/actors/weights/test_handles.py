"""vLLM's update infos survive the way through Ray and vLLM's own calls, which carry plain values only."""

from typing import Any

import msgspec
import pytest
import torch

from actors.weights.handles import from_plain, to_plain

# As torch's `reduce_tensor` gives it on a GPU (torch/multiprocessing/reductions.py).
ARGS = (
    torch.Tensor,
    torch.Size([2, 3]),
    (3, 1),
    0,
    torch.storage.TypedStorage,
    torch.bfloat16,
    0,
    b"handle",
    2097152,
    512,
    False,
    b"counter",
    64,
    b"event",
    True,
)
IPC = {"names": ["a"], "dtype_names": ["bfloat16"], "shapes": [[2, 3]], "ipc_handles": [{"GPU-1": ARGS}]}


def travel(info: dict[str, Any]) -> dict[str, Any]:
    """As vLLM sends it to its engine's process."""
    there: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(info))
    return there


def test_a_handle_is_what_it_was() -> None:
    there = from_plain(travel(to_plain(IPC)))
    assert there == IPC
    (args,) = there["ipc_handles"][0].values()
    assert [type(a) for a in args] == [type(a) for a in ARGS]


def test_a_parameter_is_rebuilt_as_a_tensor() -> None:
    info = {**IPC, "ipc_handles": [{"GPU-1": (torch.nn.Parameter, *ARGS[1:])}]}
    assert from_plain(to_plain(info)) == IPC


def test_what_has_no_handles_is_plain_already() -> None:
    info = {"names": ["a"], "dtype_names": ["float32"], "shapes": [[4]]}
    assert to_plain(info) == info == from_plain(info)


def test_the_info_itself_is_left_as_it_was() -> None:
    to_plain(IPC)
    assert IPC["ipc_handles"] == [{"GPU-1": ARGS}]


@pytest.mark.parametrize(("place", "name"), [(4, "os.system"), (5, "load"), (5, "no_such")])
def test_a_name_that_no_tensor_has_is_refused(place: int, name: str) -> None:
    plain = to_plain(IPC)
    plain["ipc_handles"][0]["GPU-1"][place] = name
    with pytest.raises(ValueError, match="no tensor has a "):
        from_plain(plain)
