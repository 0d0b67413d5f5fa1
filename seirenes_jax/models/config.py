"""What a decoder is made of and how it runs: one frozen record for every backbone.

hf/ reads and writes what it is made of; `fitted` decides how it runs on a platform.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jax.sharding import Mesh

from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import Lora, Model
from seirenes_jax.state import NOT_RECORDED

PLATFORMS = {"cpu": "cpu", "tpu": "tpu", "gpu": "gpu", "cuda": "gpu", "rocm": "gpu"}
# What `auto` means on each.
ATTENTION = {"cpu": "xla", "tpu": "splash", "gpu": "cudnn"}
MOE = {"cpu": "plain", "tpu": "mosaic", "gpu": "triton"}
# Kernels written for one platform.
ONLY_ON = {"splash": "tpu", "cudnn": "gpu", "mosaic": "tpu", "triton": "gpu"}
EXPERT_PARTS = ("gate", "up", "down")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    family: str  # "qwen2" | "qwen3" | "qwen3_moe"
    vocab: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    rope_theta: float
    norm_eps: float
    tied: bool  # the output head is the embedding
    qkv_bias: bool  # Qwen2.5
    qk_norm: bool  # Qwen3
    init_std: float
    max_positions: int
    dtype: str  # compute
    param_dtype: str
    remat: str  # "none" | "dots" | "full" | "offload"
    # Mixture of experts; 0 experts = dense.
    experts: int = 0
    experts_per_token: int = 0
    expert_ff: int = 0  # feed-forward width of one expert
    norm_topk: bool = False  # the gates of a token's experts sum to 1
    balance: float = 0.0  # the model's own weight of the balance loss (router_aux_loss_coef)
    # How it runs: see `fitted`.
    attention: str = "xla"  # a name in attention.BACKENDS
    moe: str = "plain"  # a name in grouped.PRODUCTS
    lora: Lora | None = None  # None: no adapters
    balance_scale: float = 1.0  # training multiplies `balance` by it
    replay_routes: bool = True  # experts chosen in decoding are recorded, to be used in training
    mesh: Mesh | None = None  # None: one device

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"model: {self.heads} heads do not divide over {self.kv_heads} key/value heads; "
                "heads must be a multiple of kv_heads"
            )
        if self.head_dim % 2:
            raise ConfigError(f"model.head_dim: got {self.head_dim}; rotary positions need it even")
        if self.experts and not 0 < self.experts_per_token <= self.experts <= NOT_RECORDED:
            raise ConfigError(
                f"model: {self.experts_per_token} of {self.experts} experts a token; wanted at "
                f"least 1, no more than there are, and at most {NOT_RECORDED} experts (routes are "
                "recorded in one byte)"
            )
        unknown = [name for name in EXPERT_PARTS if self.lora and name in self.lora.targets]
        if self.experts and unknown:
            raise ConfigError(
                f"model.lora.targets: got {', '.join(unknown)}, which are parts of the "
                f"{self.experts} experts of this model; experts have no adapters; wanted some of "
                "q, k, v, o"
            )
        if self.mesh is not None and self.kv_heads % self.mesh.shape["tensor"]:
            raise ConfigError(
                f"mesh: layers/attention/k/kernel has {self.kv_heads} key/value heads, which do "
                f"not divide over tensor = {self.mesh.shape['tensor']}; change mesh.tensor (in "
                "decoding decode.tensor)"
            )


def from_shape(model: Model, *, vocab: int, max_positions: int) -> ModelConfig:
    """The Qwen3-shaped decoder of `model.shape`, for runs that start from nothing."""
    s = model.shape
    return ModelConfig(
        family="qwen3", vocab=vocab, layers=s.layers, width=s.width, heads=s.heads,
        kv_heads=s.kv_heads, head_dim=s.head_dim, ff=s.ff, rope_theta=s.rope_theta, norm_eps=1e-6,
        tied=s.tied, qkv_bias=False, qk_norm=True, init_std=s.width**-0.5 / 2,
        max_positions=max_positions, dtype=model.dtype, param_dtype=model.param_dtype,
        remat=model.remat,
    )  # fmt: skip


def adapted(config: ModelConfig, model: Model) -> ModelConfig:
    """With adapters where the knobs want them; the weights under these, which never move, are kept
    in the compute dtype."""
    if not model.lora.rank:
        return config
    return replace(config, lora=model.lora, param_dtype=model.dtype)


def fitted(config: ModelConfig, model: Model, mesh: Mesh) -> ModelConfig:
    """The config as it runs on these devices: what `auto` means there; what cannot run there is
    refused."""
    platform = mesh.devices.flat[0].platform
    if platform not in PLATFORMS:
        raise ConfigError(
            f"the devices are of platform {platform!r}; the model runs on {', '.join(PLATFORMS)}"
        )
    platform = PLATFORMS[platform]
    attention = _chosen("model.attention", model.attention, ATTENTION, platform)
    if attention == "cudnn" and config.dtype != "bfloat16":
        if model.attention != "auto":
            raise ConfigError(
                f"model.attention: cudnn computes in bfloat16; got model.dtype = {config.dtype}; "
                "use model.attention=xla or model.dtype=bfloat16"
            )
        attention = "xla"
    return replace(
        adapted(config, model), attention=attention,
        moe=_chosen("model.moe", model.moe, MOE, platform),
        balance_scale=model.balance, replay_routes=model.replay_routes,
        mesh=mesh if mesh.size > 1 else None,
    )  # fmt: skip


def _chosen(knob: str, asked: str, auto: Mapping[str, str], platform: str) -> str:
    name = auto[platform] if asked == "auto" else asked
    if ONLY_ON.get(name, platform) != platform:
        raise ConfigError(
            f"{knob}: {name} runs on {ONLY_ON[name]}, and this is {platform}; use auto"
        )
    return name
