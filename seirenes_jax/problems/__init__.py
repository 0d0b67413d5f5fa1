"""Files of problems -> Problem: read, made unique, decontaminated, accounted for; never jax."""

from seirenes_jax.problems.account import Account
from seirenes_jax.problems.formats import FORMATS, content_id
from seirenes_jax.problems.sieve import fit, load, sieve

__all__ = ["FORMATS", "Account", "content_id", "fit", "load", "sieve"]
