"""The two players and the categories of a seed."""

from typing import Literal, get_args

Player = Literal["attacker", "defender"]
Category = Literal["harmful", "benign"]

PLAYERS: tuple[Player, ...] = get_args(Player)
CATEGORIES: tuple[Category, ...] = get_args(Category)
