"""The one table of games: add a file, add a line."""

from seirenes_jax.games import rlvr, seirenes
from seirenes_jax.games.base import Game

GAMES: dict[str, Game] = {"seirenes": seirenes.GAME, "rlvr": rlvr.GAME}
