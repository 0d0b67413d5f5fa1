"""transformers: generate() in float32, a batch at a time."""

from pathlib import Path
from typing import Any

import torch
import wire
import work
from transformers import AutoModelForCausalLM


def decode(case: str, folder: Path, variant: str) -> wire.Made:
    requests = work.DECODE[case]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompts = torch.tensor(requests.prompts())

    def call() -> dict[str, Any]:
        answers = []
        for batch in prompts.split(requests.slots):
            with torch.inference_mode():
                out = model.generate(
                    input_ids=batch, attention_mask=torch.ones_like(batch), do_sample=True,
                    temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=requests.longest,
                    eos_token_id=work.EOS, pad_token_id=work.PAD,
                )  # fmt: skip
            answers += [cut(row) for row in out[:, requests.prompt :].tolist()]
        return {"answers": answers, "slot_use": requests.static_use(requests.slots)}

    return f"batch {requests.slots}, {model.config._attn_implementation}", call


def cut(row: list[int]) -> list[int]:
    """Up to and with the end; what follows is padding."""
    return row[: row.index(work.EOS) + 1] if work.EOS in row else row


if __name__ == "__main__":
    wire.serve({"decode": decode}, ["transformers", "torch"])
