"""google-tunix: its Sampler, and its RL Trainer and GRPO loss on padded rows."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import wire
import work
from flax import nnx
from tunix.generate import sampler as sampling
from tunix.models.qwen3 import model as qwen3
from tunix.models.qwen3 import params as qwen3_params
from tunix.rl import algo_core, common
from tunix.rl import trainer as training
from tunix.rl.grpo.dapo_learner import DAPOConfig
from tunix.sft.peft_trainer import TrainingConfig


class Numbers:
    """A tokenizer of numbers written out: what `Sampler` asks of one."""

    def encode(self, text: str, **_: object) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int], **_: object) -> str:
        return ""

    def bos_id(self) -> int:
        return 0  # it takes any other number, -1 too, for one to put in front

    def eos_id(self) -> int:
        return work.EOS

    def pad_id(self) -> int:
        return work.PAD

    def dedup_bos_ids(self, ids: list[int]) -> list[int]:
        return ids


def load(shape: work.Shape, folder: Path, remat: str) -> tuple[Any, jax.sharding.Mesh]:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    config = qwen3.ModelConfig(
        num_layers=shape.layers, vocab_size=shape.vocab, embed_dim=shape.width,
        hidden_dim=shape.ff, num_heads=shape.heads, head_dim=shape.head_dim,
        num_kv_heads=shape.kv_heads, rope_theta=int(shape.rope_theta), norm_eps=1e-6,
        use_tied_embedding=False, remat_config=qwen3.RematConfig[remat], dtype=jnp.float32,
        param_dtype=jnp.float32,
    )  # fmt: skip
    model = qwen3_params.create_model_from_safe_tensors(
        str(folder), config, mesh, dtype=jnp.float32
    )
    return model, mesh


def decode(case: str, folder: Path, variant: str) -> wire.Made:
    """`variant`: how many requests a batch; as many as there are slots unless it says so."""
    requests = work.DECODE[case]
    shape, batch = work.SHAPES[requests.shape], int(variant or requests.slots)
    model, _ = load(shape, folder, "NONE")
    room = requests.prompt + requests.longest
    cache = sampling.CacheConfig(
        cache_size=room, num_layers=shape.layers, num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )  # fmt: skip
    sampler = sampling.Sampler(model, Numbers(), cache)
    prompts = [" ".join(map(str, prompt)) for prompt in requests.prompts()]

    def call() -> dict[str, Any]:
        answers = []
        for start in range(0, len(prompts), batch):
            out = sampler(
                prompts[start : start + batch], max_generation_steps=requests.longest,
                max_prompt_length=requests.prompt, temperature=1.0, top_p=1.0,
                return_logprobs=True, eos_tokens=[work.EOS], seed=start,
            )  # fmt: skip
            answers += [np.asarray(tokens).tolist() for tokens in out.tokens]
        # It leaves the end out.
        answers = [a if a and a[-1] == work.EOS else [*a, work.EOS] for a in answers]
        return {"answers": answers, "slot_use": requests.static_use(batch)}

    return f"batch {batch}, cache {room}", call


def train(case: str, folder: Path, variant: str) -> wire.Made:
    """`variant`: what the backward pass recomputes, in Tunix's words."""
    lessons = work.TRAIN[case]
    model, mesh = load(work.SHAPES[lessons.shape], folder, variant)
    optimizer = optax.chain(
        optax.clip_by_global_norm(work.CLIP_NORM),
        optax.adamw(
            work.LEARNING_RATE, b1=work.B1, b2=work.B2, eps=work.EPS, weight_decay=work.DECAY
        ),
    )
    trainer = training.Trainer(
        model, optimizer, TrainingConfig(eval_every_n_steps=10**9),
        custom_checkpoint_metadata_fn=dict,
    )  # fmt: skip
    trainer.is_managed_externally = True  # as its RLCluster has it: a call is a step, not a run
    algorithm = DAPOConfig(
        num_generations=max(2, lessons.group), epsilon=work.CLIP_LOW, epsilon_high=work.CLIP_HIGH
    )
    algorithm.temperature = 1.0  # outside RLCluster it is set by hand

    def loss(model: Any, train_example: Any) -> Any:
        return algo_core.grpo_loss_fn(
            model, train_example, algorithm, pad_id=work.PAD, eos_id=work.EOS
        )

    trainer.with_loss_fn(loss, has_aux=True)
    trainer.with_gen_model_input_fn(lambda example: {"train_example": example})
    rows = lessons.padded()
    example = common.TrainExample(
        prompt_ids=jnp.asarray(rows.prompts), prompt_mask=jnp.asarray(rows.prompts != work.PAD),
        completion_ids=jnp.asarray(rows.answers),
        completion_mask=jnp.asarray(rows.answers != work.PAD),
        advantages=jnp.asarray(rows.advantages), ref_per_token_logps=None,
        old_per_token_logps=jnp.full(rows.answers.shape, lessons.old_logprob, jnp.float32),
    )  # fmt: skip

    def call() -> dict[str, Any]:
        with mesh:
            trainer.train([example])
        jax.block_until_ready(nnx.state(trainer.model))
        # A step's numbers wait here until the next one has begun.
        told = trainer._prev_buffered_train_metrics
        norm = told.additional_metrics["grad_norm"][0][-1]
        return {
            "loss": float(told.losses[-1]), "grad_norm": float(norm), "slot_use": rows.use
        }  # fmt: skip

    B, P = rows.prompts.shape
    return f"rows {B} x {P + rows.answers.shape[1]}, remat {variant}", call


if __name__ == "__main__":
    wire.serve(
        {"decode": decode, "train": train}, ["google-tunix", "jax", "jaxlib", "flax", "optax"]
    )
