"""An event of the replay buffer's journal: the rules make it, recovery reads it, `store.journal` lists all kinds."""

from typing import Any

Event = dict[str, Any]  # what one line of JSON holds: `e` names the event
