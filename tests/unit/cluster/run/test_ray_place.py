"""Where Ray is or may be started, told in one whole line before Ray is."""

import pytest

from cluster.run.ray_place import SOCKET, SOCKET_BYTES, check_socket_folder, read_address, short_tmpdir
from cluster.run.session import ray_session
from protocol.errors import UserError


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_folder_that_is_too_long_for_sockets_names_the_remedy(name: str) -> None:
    folder = "/" + "x" * 129
    with pytest.raises(
        UserError, match=rf"^{name}: {folder} has 130 bytes, .* set RAY_TMPDIR to a shorter folder"
    ) as refused:
        check_socket_folder({name: folder})
    assert "\n" not in str(refused.value)
    check_socket_folder({"TMPDIR": folder, "RAY_TMPDIR": "/tmp"})
    check_socket_folder({})


def test_the_limit_is_that_of_a_sockets_path() -> None:
    longest = "/" + "x" * (SOCKET_BYTES - len(SOCKET) - 2)
    assert len(f"{longest}/{SOCKET}") == SOCKET_BYTES
    check_socket_folder({"TMPDIR": longest})
    check_socket_folder({"TMPDIR": f"{longest}/"})
    with pytest.raises(UserError, match=rf"leave it {len(longest)} at most"):
        check_socket_folder({"TMPDIR": f"{longest}x"})


def test_a_long_tmpdir_is_left_by_other_sockets_too() -> None:
    """Ray's dashboard and vLLM have theirs below TMPDIR, whatever RAY_TMPDIR is."""
    uuid = "/36b8f84d-df4e-4d49-b662-bcde71a8764f"
    longest = "/" + "x" * (SOCKET_BYTES - len(uuid) - 1)
    assert short_tmpdir({"TMPDIR": longest, "RAY_TMPDIR": "/tmp"}) is None
    assert short_tmpdir({"TMPDIR": f"{longest}x", "RAY_TMPDIR": "/short"}) == "/short"
    assert short_tmpdir({}) is short_tmpdir({"RAY_TMPDIR": "/short"}) is None


def test_a_session_is_refused_before_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 129)
    with pytest.raises(UserError, match="RAY_TMPDIR"), ray_session(lambda *_: pytest.fail("nothing is waited for")):
        pass


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://head:8265", r"^RAY_ADDRESS: http://head:8265 is the address of a dashboard, .*, or unset it$"),
        ("https://head:8265", "is the address of a dashboard"),
        ("ray://head:10001", r"is of the kind ray://, which a run's driver cannot use; .*, or unset it$"),
        ("redis://head:6379", "is of the kind redis://"),
    ],
)
def test_an_address_of_another_kind_is_one_whole_line(address: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        read_address({"RAY_ADDRESS": address})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "address"),
    [(None, None), ("", None), (" ", None), ("local", None), ("auto", "auto"), (" 10.0.0.1:6379\n", "10.0.0.1:6379")],
)
def test_what_is_no_address_means_a_ray_of_our_own(value: str | None, address: str | None) -> None:
    assert read_address({} if value is None else {"RAY_ADDRESS": value}) == address


def test_what_ray_says_of_an_address_is_told_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.run import session

    class Ray:
        @staticmethod
        def init(**_: object) -> None:
            raise ValueError("it must be either:\n  - this\n  - that")

    with pytest.raises(UserError, match=r"\(ValueError: it must be either: - this - that\); correct it, or unset it$"):
        session._connect(Ray, "nowhere:1", {})


def test_a_folder_that_ray_cannot_write_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.run import session

    class Ray:
        @staticmethod
        def init(**_: object) -> None:
            raise PermissionError(13, "Permission denied", "/proc/ray")

    monkeypatch.setattr(session, "_added", set())
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    for name in (
        "RAY_DASHBOARD_ENABLE_PROFILING",
        "PATH",
        "RAY_USAGE_STATS_ENABLED",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER",
    ):
        monkeypatch.setenv(name, "1")
    with pytest.raises(
        UserError, match=r"^RAY_TMPDIR: Ray cannot use /proc \(PermissionError: .*\); set RAY_TMPDIR to a folder"
    ):
        session._connect(Ray, None, {})
