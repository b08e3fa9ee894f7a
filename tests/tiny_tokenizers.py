"""Tokenizers of encoder models, as transformers makes and saves them: BERT's of words, RoBERTa's of bytes."""

from __future__ import annotations

from typing import Any

#: Words that BERT's knows; others are [UNK], or pieces of these.
WORDS = ("the", "cat", "sat", "on", "a", "mat", "dog", "ran", "once", "upon", "time", "##s", "##ting", ",", ".")


def bert_tokenizer() -> Any:
    """[CLS] a [SEP] b [SEP], types 0 and 1; text in lower case."""
    import transformers

    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    return transformers.BertTokenizerFast(vocab={name: i for i, name in enumerate(names)}, do_lower_case=True)


def roberta_tokenizer() -> Any:
    """<s> a </s></s> b </s>, all types 0; a token a byte."""
    import tokenizers
    import transformers

    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    names = ("<s>", "<pad>", "</s>", "<unk>", *letters, "<mask>")
    return transformers.RobertaTokenizerFast(vocab={name: i for i, name in enumerate(names)}, merges=[])
