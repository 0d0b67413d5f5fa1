"""What adapters stand on: weights that are read, never moved, and known again by their digest.

A run that starts from a folder or hub id alone can read them there again. Any other (a warm start,
another run's weights) keeps them in its own folder, `base/`, which PEFT can load as well.
"""

import jax

from seirenes_jax import hf
from seirenes_jax.checkpoint import noted
from seirenes_jax.errors import ConfigError
from seirenes_jax.fingerprint import digest
from seirenes_jax.hosts import first, writes
from seirenes_jax.knobs import Settings
from seirenes_jax.models import ModelConfig, init_params, split, without_adapters
from seirenes_jax.start import Start, abstract_params
from seirenes_jax.state import Params
from seirenes_jax.store import Folder, is_remote

FOLDER = "base"
MARK = "digest.txt"  # of what lies there


def first_adapters(config: ModelConfig, seed: int, mesh: jax.sharding.Mesh) -> Params:
    """Those of step 0, which change nothing."""
    places = jax.tree.map(lambda x: x.sharding, split(abstract_params(config, mesh))[1])
    made: Params = jax.jit(
        lambda: split(init_params(config, seed))[1], out_shardings=places
    )()
    return made


def keep(base: Params, mark: str, *, start: Start, settings: Settings, home: Folder) -> None:
    """Write it into the run, once, where no other folder holds it."""
    if not _is_the_runs_own(settings):
        return
    folder = home / FOLDER
    note = folder / MARK
    if first(lambda: note.read_text() if note.is_file() else "none") == mark:
        return
    hf.export(
        base, without_adapters(start.config), folder, tokenizer=start.tokenizer,
        dtype=start.config.param_dtype,
    )  # fmt: skip
    if writes():
        note.write_text(mark)


def place_of(run: Folder, settings: Settings) -> str:
    """Where the base of a run is to be had, as PEFT reads it."""
    if not _is_the_runs_own(settings):
        return settings.model.path
    return str((run if is_remote(run) else run.absolute()) / FOLDER)


def of_run(
    run: Folder, settings: Settings, config: ModelConfig, *, abstract: Params, step: int
) -> Params:
    """The base that the adapters of a saved step were trained on, as `abstract` wants it."""
    own = _is_the_runs_own(settings)
    folder = run / FOLDER if own else hf.find(settings.model.path)
    params = hf.load(folder, config, abstract)
    refuse_another(noted(run / "checkpoints", step)["base"], digest(params), str(folder))
    return params


def refuse_another(stored: str, found: str, where: str) -> None:
    """Adapters mean nothing on other weights."""
    if stored != found:
        raise ConfigError(
            f"the adapters of this run stand on weights of digest {stored or 'none'}; got {found} "
            f"from {where}. Give back the weights it began with, or begin in another --workdir"
        )


def _is_the_runs_own(settings: Settings) -> bool:
    return not settings.model.path or bool(settings.init_from)
