"""The tiny world's own tokenizer: SentencePiece, trained here, handed on as a Hugging Face folder.

Same texts, same bytes. Every digit is a token, every tag and turn marker is one token, common words
are one token each. No space is put in front of a text, so decoding gives back what was encoded.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seirenes_jax.errors import DataError

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
TURNS = ("<|system|>", "<|user|>", "<|assistant|>")  # only the chat template writes them
TAGS = ("\\boxed{", "}", "<hint>", "</hint>", "\n")  # ordinary text, but never cut

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- '<eos>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(texts: Sequence[str], vocab_size: int, folder: Path) -> None:
    """Train on `texts` and write tokenizer files and sentencepiece.model into `folder`.

    `vocab_size` is the most the vocabulary may hold; a small corpus gives fewer.
    """
    model = _train(texts, vocab_size)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sentencepiece.model").write_bytes(model)
    _wrap(model).save_pretrained(str(folder))
    generation = {"eos_token_id": 1, "pad_token_id": 0}
    text = json.dumps(generation, indent=2, sort_keys=True) + "\n"
    (folder / "generation_config.json").write_text(text)


def _train(texts: Sequence[str], vocab_size: int) -> bytes:
    import sentencepiece

    if not any(text.strip() for text in texts):
        raise DataError("no tokenizer can be trained on an empty corpus; got no texts")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        # A line is a sentence; the line break itself is one of TAGS.
        sentence_iterator=iter([line for text in texts for line in text.split("\n") if line]),
        model_writer=model,
        # Merges by frequency find whole words early. (Unigram seeds itself from distinct words,
        # each counted once, and so finds no whole words in a small world.)
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        # Text is taken as it stands, so that decoding gives it back.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        split_digits=True,
        byte_fallback=False,
        control_symbols=list(TURNS),
        user_defined_symbols=list(TAGS),
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece=PAD,
        eos_piece=EOS,
        unk_piece=UNKNOWN,
        unk_surface=UNKNOWN,
        # One thread, nothing sampled, nothing shuffled: the same bytes each time.
        num_threads=1,
        input_sentence_size=0,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    return model.getvalue()


def _wrap(model: bytes) -> Any:
    """The same pieces under the same ids as a fast Hugging Face tokenizer."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
    fast = Tokenizer(
        models.BPE(vocab=vocab, merges=_merges(vocab, pieces), unk_token=UNKNOWN, fuse_unk=True)
    )
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    fast.decoder = decoders.Metaspace(prepend_scheme="never")
    fast.add_special_tokens(
        [AddedToken(word, special=True, normalized=False) for word in (PAD, EOS, UNKNOWN, *TURNS)]
    )
    fast.add_tokens([AddedToken(word, special=False, normalized=False) for word in TAGS])
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=fast,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        additional_special_tokens=list(TURNS),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _merges(vocab: Mapping[str, int], pieces: Any) -> list[tuple[str, str]]:
    """Every way to join two pieces into a third, the earliest learnt first."""
    fixed = {PAD, EOS, UNKNOWN, *TURNS, *TAGS}
    learnt = sorted(vocab.keys() - fixed, key=lambda word: (-pieces.get_score(vocab[word]), word))
    return [
        (piece[:cut], piece[cut:])
        for piece in learnt
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
