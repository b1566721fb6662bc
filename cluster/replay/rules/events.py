"""An event of the replay buffer's journal, as the rules make it and recovery reads it; `store.journal` lists them."""

from typing import Any

Event = dict[str, Any]  # what one line of JSON holds: `e` names the event
