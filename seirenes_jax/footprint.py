"""Memory by arithmetic: roughly what a program needs besides its arguments.

Good for asking what a knob would change, and where nothing can be compiled. Compilers reuse and
pad; where a program was compiled, its own word counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jax.sharding import Mesh

from seirenes_jax.knobs import Settings
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.programs import Program, Scene
from seirenes_jax.roofline import layer_weights
from seirenes_jax.sharding import row_parts
from seirenes_jax.step import HEAD_COLUMNS

WIDE, NARROW = 4, 2  # bytes of float32, bfloat16
GIB = 2.0**30

# By phase, in the order of a step, what the loop holds through it. The copy that decodes and the
# caches are made for the step's answers and let go before its update.
ALWAYS = ("base", "weights", "moments", "reference", "frozen copy")
PLAYING = (*ALWAYS, "copy", "cache", "frozen cache")
LEARNING = (*ALWAYS, "gradient")
ALIVE: Mapping[str, tuple[str, ...]] = {
    "layout": ALWAYS, "prefill": PLAYING, "decode": PLAYING, "score": LEARNING, "train": LEARNING,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """What one program needs on a device, and who says so."""

    phase: str
    name: str
    held: tuple[str, ...]
    how: str
    peak_gib: float
    argument_gib: float
    seconds: float  # to compile

    def resident_gib(self, scene: Scene) -> float:
        """What lives through the phase and is no argument of this program."""
        alive = (name for name in ALIVE[self.phase] if name not in self.held)
        return sum(scene.sizes[name] for name in alive if name in scene.sizes) / GIB


def held_bytes(scene: Scene, program: Program | Judged) -> float:
    """Of a program's arguments, those of size."""
    return float(sum(scene.sizes[name] for name in program.held))


def temporary(scene: Scene, program: str) -> float:
    """Bytes on one device."""
    settings, c, mesh = scene.settings, scene.config, scene.mesh
    tensor: int = mesh.shape["tensor"]
    sequence: int = mesh.shape["sequence"]
    rows = settings.batch.rows / row_parts(mesh)
    tokens = rows * settings.batch.row_tokens / sequence
    gathered = _gathered(c, mesh)
    learns = _layer(c, tokens, mesh) + _head(c, rows * sequence, tensor)
    if program.startswith("lay out"):
        laid = program.endswith("base") or "base" not in scene.sizes
        return scene.sizes["copy"] + 2 * NARROW * c.vocab * c.width if laid else 0.0
    if program == "score_step":
        return learns / 3 + gathered
    gradient = scene.sizes["gradient"]
    if program == "add_gradient":
        return gradient + _saved(settings, c, tokens, tensor) + learns + 2 * gathered
    if program == "apply_gradient":
        return gradient / 2
    return _playing(scene, program)


def _playing(scene: Scene, program: str) -> float:
    """Of the programs that decode."""
    settings, c, island = scene.settings, scene.config, scene.island
    tensor: int = island.shape["tensor"]
    parts = row_parts(island)
    slots, kv = settings.sampler.slots / parts, 2 * NARROW * c.kv_heads * c.head_dim / tensor
    if program == "admit":
        filled = scene.sampler.prefill_rows / parts * settings.tokens.prompt
        seated = slots * settings.tokens.prompt
        return c.layers * kv * (filled + seated) + _layer(c, filled, island) / 2
    fresh = c.layers * slots * settings.sampler.chunk * kv
    looked = slots * scene.sampler.columns * kv * 2  # one layer's
    return fresh + looked + 3 * slots * c.vocab * WIDE


def _layer(c: ModelConfig, tokens: float, mesh: Mesh) -> float:
    """The inner numbers of one layer, backward; half of them live at a time."""
    tensor: int = mesh.shape["tensor"]
    numbers: float = 4 * (c.heads + c.kv_heads) * c.head_dim / tensor
    if c.experts:  # every device of an expert group has a row for each choice of the whole group
        rows: int = c.experts_per_token * mesh.shape["expert"]
        numbers += rows * (4 * c.width + 6 * c.expert_ff / tensor)
    else:
        numbers += 6 * c.ff / tensor
    return tokens * (NARROW * numbers + WIDE * 4 * c.width) / 2


def _head(c: ModelConfig, rows: float, tensor: int) -> float:
    """Logits of a few columns, their slopes, and the head's own gradient."""
    table = c.vocab * c.width / tensor
    return 3 * WIDE * rows * HEAD_COLUMNS * c.vocab / tensor + 2 * NARROW * table


def _gathered(c: ModelConfig, mesh: Mesh) -> float:
    """One layer's weights, whole over fsdp, in the compute dtype."""
    parts: int = mesh.shape["tensor"]
    if c.experts:
        parts *= mesh.shape["expert"]
    return NARROW * layer_weights(c, active=False) / parts


def _saved(settings: Settings, c: ModelConfig, tokens: float, tensor: int) -> float:
    """What the forward pass leaves for the backward pass."""
    ff = c.expert_ff * c.experts_per_token if c.experts else c.ff
    products = (c.heads + 2 * c.kv_heads) * c.head_dim / tensor + 2 * ff / tensor + 2 * c.width
    numbers = {
        "offload": 2.0 * c.width / c.layers, "full": float(c.width),
        "dots": c.width + products,
        "none": 4.0 * c.width + 2 * products,
    }[settings.model.remat]  # fmt: skip
    return NARROW * c.layers * tokens * numbers
