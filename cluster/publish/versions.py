"""Which versions the publisher keeps, and on which nodes their bytes lie. The bytes themselves are the holders' (`holder`).

A version lies on the node of its learner, which hands it over without moving a byte, and on each node that a worker asked for it
from. When it is not needed any more it is dropped everywhere. It belongs to one event loop.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError

from cluster.publish.holder import Holder, Key
from protocol.errors import VersionGone
from protocol.roles import PLAYERS, Player
from protocol.shared import SharedFile
from protocol.types import WeightManifest

CHECK_S = 5.0  # for a holder to say that it is there; it does nothing else in its loop


@dataclass
class HeldVersion:
    """A version: `source` is the node that its learner left it on; `files`, by node, where it lies, or is on its way to."""

    manifest: WeightManifest
    source: str
    files: dict[str, "asyncio.Future[SharedFile]"] = field(default_factory=dict)


class Versions:
    """See the module's docstring.

    Args:
        node: the publisher's own.
        make_holder: starts a holder's actor on the node of that id.
        own: gives the handle that other nodes' holders read from this node by; it has `Holder.read`.
    """

    def __init__(self, node: str, make_holder: Callable[[str], Any], own: Callable[[], Any]) -> None:
        self._node, self._make_holder, self._own = node, make_holder, own
        self.local = Holder(node)
        self._holders: dict[str, Any] = {}
        self._held: dict[Player, dict[int, HeldVersion]] = {p: {} for p in PLAYERS}
        self._taking: dict[tuple[Player, int], asyncio.Future[HeldVersion]] = {}
        self._dropping: set[asyncio.Future[None]] = set()

    def __contains__(self, key: tuple[Player, int]) -> bool:
        return key[1] in self._held[key[0]]

    def get(self, player: Player, version: int) -> HeldVersion | None:
        """The version, if it is held."""
        return self._held[player].get(version)

    def list_held(self, player: Player) -> frozenset[int]:
        """The player's versions."""
        return frozenset(self._held[player])

    def newest_step(self, player: Player) -> int:
        """Learner steps that the newest of the player's versions contains."""
        return max((held.manifest.step for held in self._held[player].values()), default=0)

    async def take(self, manifest: WeightManifest, file: SharedFile) -> None:
        """Keeps what a learner left. Asked again while it is at it, it does it once.

        Raises:
            FileNotFoundError: it is gone.
            RayError: the holder on its node does not answer.
        """
        key = manifest.player, manifest.version
        if key not in self._taking:
            taking = self._taking[key] = asyncio.ensure_future(self._take(manifest, file))
            taking.add_done_callback(lambda _: self._taking.pop(key))
        self._held[manifest.player][manifest.version] = await asyncio.shield(self._taking[key])

    async def _take(self, manifest: WeightManifest, file: SharedFile) -> HeldVersion:
        held = HeldVersion(manifest, file.node or self._node)
        found = asyncio.get_running_loop().create_future()
        found.set_result(await self._call(held.source, "hold", manifest.player, manifest.version, file))
        held.files[held.source] = found
        return held

    async def file_on(self, player: Player, version: int, node: str) -> SharedFile:
        """Where the version's bytes lie on a node; they are brought there first, once, if they are not there yet.

        Raises:
            VersionGone: it is not held, or the node that had it is gone.
        """
        held = self._held[player].get(version)
        if held is None:
            raise VersionGone(player, version)
        found = held.files.get(node)
        if found is None:
            found = held.files[node] = asyncio.ensure_future(self._copy(held, node))
        try:
            return await asyncio.shield(found)
        except (RayError, OSError, VersionGone, ExceptionGroup) as error:
            held.files.pop(node, None)
            if held.source not in (self._node, *self._holders):
                self._lose(held)
            raise VersionGone(player, version) from error

    async def check(self, player: Player, version: int, node: str) -> None:
        """A worker could not have the bytes: if the holder on that node does not answer, they are not there any more."""
        if node == self._node or node not in self._holders:
            return
        try:
            async with asyncio.timeout(CHECK_S):
                await self._holders[node].alive.remote()
        except (RayActorError, TimeoutError):
            self.forget(player, version, node)

    def forget(self, player: Player, version: int, node: str) -> None:
        """The bytes are not on that node, whatever was thought: its holder died. The next who asks has them brought anew.

        Where its learner left them there, they are lost.
        """
        held = self._held[player].get(version)
        if held is not None and node != self._node and node in held.files and held.files[node].done():
            del held.files[node]
            self._holders.pop(node, None)
            if node == held.source:
                self._lose(held)

    def _lose(self, held: HeldVersion) -> None:
        """The holder on its learner's node is gone: it is not held any more, so that its learner, if it lives, leaves it again."""
        mine = self._held[held.manifest.player]
        if mine.get(held.manifest.version) is held:
            self._drop(mine.pop(held.manifest.version))

    def release(self, player: Player, needed: Collection[int]) -> None:
        """Drops the player's versions that are not among the needed ones."""
        for version in sorted(self._held[player].keys() - needed):
            self._drop(self._held[player].pop(version))

    def _drop(self, held: HeldVersion) -> None:
        for node, found in held.files.items():
            dropping = asyncio.ensure_future(self._drop_on(node, (held.manifest.player, held.manifest.version), found))
            self._dropping.add(dropping)
            dropping.add_done_callback(self._dropping.discard)

    async def _drop_on(self, node: str, key: Key, found: "asyncio.Future[SharedFile]") -> None:
        await asyncio.wait([found])  # a copy that is on its way is dropped when it is there
        if found.exception() is not None:
            return
        if node == self._node:
            await self.local.drop([key])
        elif node in self._holders:
            self._holders[node].drop.remote([key])

    async def _copy(self, held: HeldVersion, node: str) -> SharedFile:
        manifest = held.manifest
        source = self._own() if held.source == self._node else self._holders.get(held.source)
        if source is None:
            raise VersionGone(manifest.player, manifest.version)
        file: SharedFile = await self._call(node, "copy", manifest.player, manifest.version, manifest.nbytes, source)
        return file

    async def _call(self, node: str, method: str, *args: Any) -> Any:
        if node == self._node:
            return await getattr(self.local, method)(*args)
        if node not in self._holders:
            self._holders[node] = self._make_holder(node)
        try:
            return await getattr(self._holders[node], method).remote(*args)
        except RayTaskError:
            raise
        except RayActorError:
            self._holders.pop(node, None)  # the next call starts another
            raise
