"""TRL: the loss of its GRPOTrainer on padded rows, backward, AdamW."""

import tempfile
from pathlib import Path
from typing import Any

import torch
import wire
import work
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer


def make_trainer(lessons: work.Lessons, model: Any, *, checkpointing: bool) -> GRPOTrainer:
    """Its own defaults but for precision, place, and the loss as a mean over tokens (dapo)."""
    rows = lessons.groups * lessons.group
    settings = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, report_to=[], loss_type="dapo",
        beta=0.0, temperature=1.0, epsilon=work.CLIP_LOW, epsilon_high=work.CLIP_HIGH,
        per_device_train_batch_size=rows, gradient_accumulation_steps=1, steps_per_generation=1,
        num_generations=max(2, lessons.group), max_completion_length=lessons.longest,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    words = {"<pad>": work.PAD, "<eos>": work.EOS, "word": 2}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="word")), pad_token="<pad>",
        eos_token="<eos>", unk_token="word",
    )  # fmt: skip
    trainer = GRPOTrainer(
        model, reward_funcs=no_reward, args=settings, processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": ["word"] * rows}),
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1  # its loop would set it
    if checkpointing:
        trainer.model.gradient_checkpointing_enable(settings.gradient_checkpointing_kwargs)
    trainer.model.train()
    return trainer


def no_reward(completions: list[str], **_: object) -> list[float]:
    """Asked for by the trainer, never called: advantages are given."""
    return [0.0] * len(completions)


def train(case: str, folder: Path, variant: str) -> wire.Made:
    """`variant`: "checkpointing", as it trains by itself, or "none"."""
    lessons = work.TRAIN[case]
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    trainer = make_trainer(lessons, model, checkpointing=variant == "checkpointing")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=work.LEARNING_RATE, betas=(work.B1, work.B2), eps=work.EPS,
        weight_decay=work.DECAY,
    )  # fmt: skip
    rows = lessons.padded()
    prompts, answers = torch.from_numpy(rows.prompts).long(), torch.from_numpy(rows.answers).long()
    inputs = {
        "prompt_ids": prompts, "prompt_mask": (prompts != work.PAD).long(),
        "completion_ids": answers, "completion_mask": (answers != work.PAD).long(),
        "advantages": torch.from_numpy(rows.advantages),
        "old_per_token_logps": torch.full(answers.shape, lessons.old_logprob),
        "num_items_in_batch": (answers != work.PAD).sum(),
    }  # fmt: skip

    def call() -> dict[str, Any]:
        loss = trainer.compute_loss(trainer.model, inputs)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), work.CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {"loss": float(loss), "grad_norm": float(norm), "slot_use": rows.use}

    B, P = prompts.shape
    how = f"rows {B} x {P + answers.shape[1]}, dapo, gradient checkpointing: {variant}"
    return how.replace(": checkpointing", ""), call


if __name__ == "__main__":
    wire.serve({"train": train}, ["trl", "transformers", "torch"])
