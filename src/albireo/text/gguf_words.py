"""How byte-level BPE of a GGUF file splits text before pairs are merged, by tokenizer.ggml.pre.

Called by gguf_tokenizer.py. Patterns are those of the tokenizers published with each model; which name stands for which
is that of llama.cpp (src/llama-vocab.cpp, conversion/base.py). Does not know vocabularies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

#: Steps that are no pattern: runs of punctuation; runs of digits; each digit; GPT-2's words, as bytes from there on.
PUNCTUATION, DIGITS, EACH_DIGIT, WORDS_AS_BYTES = "<punctuation>", "<digits>", "<each digit>", "<words as bytes>"

_OTHERS = r" ?[^\s\p{L}\p{N}]+"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = _SUFFIX + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDS = r"[\r\n]*|" + _SPACES
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+" + f"|{_OTHERS}" + r"|\s+(?!\S)|\s+"
_LLAMA3 = _LETTERS + r"|\p{N}{1,3}|" + _OTHERS + _ENDS
_QWEN2 = _LETTERS + r"|\p{N}|" + _OTHERS + _ENDS
#: Marks belong to the letters before them.
_QWEN35 = _SUFFIX + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+" + _ENDS
_LING = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_MINICPM5 = _LETTERS + r"|\p{N}+|" + _OTHERS + _ENDS
#: Words of letters with one space between them are one.
_EXAONE_MOE = (
    _SUFFIX
    + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|"
    + _OTHERS
    + r"[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_RUNS_OF_SPACES = "|".join(rf"\s{{{size}}}(?!\S)" for size in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))
_JAIS2 = _LETTERS + r"|\p{N}{1,3}|" + _OTHERS + r"[\r\n]*|\s*[\r\n]+|" + _RUNS_OF_SPACES + r"|\s{1}"
_LINES = r"[^\n]+|[\n]+"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_SEED = _LETTERS + r"|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|" + _SPACES
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(upper: str, lower: str, suffix: str) -> str:
    """Words in capitals, and a word that begins with them."""
    first = r"[^\r\n\p{L}\p{N}]?"
    return rf"{first}{upper}*{lower}+{suffix}|{first}{upper}+{lower}*{suffix}"


#: That of o200k. Tekken's knows no suffixes, and has each digit by itself; Kimi's has runs of Chinese characters.
_GPT4O = _cased(_UPPER, _LOWER, f"{_SUFFIX}?") + r"|\p{N}{1,3}|" + _OTHERS + r"[\r\n/]*|" + _SPACES
_TEKKEN = _cased(_UPPER, _LOWER, "") + r"|\p{N}|" + _OTHERS + r"[\r\n/]*|" + _SPACES
_YOUTU = (
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
    _cased(_UPPER, _LOWER, f"{_SUFFIX}?") + r"|\p{N}|" + _OTHERS + r"[\r\n/]*|" + _SPACES,
)
_KIMI = (
    r"[\p{Han}]+|"
    + _cased(f"{_UPPER[:-1]}&&[^\\p{{Han}}]]", f"{_LOWER[:-1]}&&[^\\p{{Han}}]]", f"{_SUFFIX}?")
    + r"|\p{N}{1,3}|"
    + _OTHERS
    + _ENDS
)
_SIGN_AND_LETTERS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
_DEEPSEEK3 = _SIGN_AND_LETTERS + r"| ?[\p{P}\p{S}]+[\r\n]*|" + _SPACES
_KANA_AND_HAN = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
#: Of Arcee Trinity: Han, kana, and scripts of South East Asia and Korea.
_ASIAN = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_SPARK = _SIGN_AND_LETTERS + r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
#: Letters with a case, of Unicode when the first DeepSeek was made.
_CASED = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώ"
    "ᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏"
    "𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_HAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_SIGNS = "[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"


@dataclass(frozen=True, slots=True)
class Words:
    """What is done before pairs are merged.

    Fields:
        steps: patterns, and what is no pattern, each on what the last one left.
        keeps_whole: a word that is in the vocabulary is not merged.
        is_composed: Unicode is composed (NFC) first.
        begins: BOS goes before a text where the file does not say.
    """

    steps: tuple[str, ...]
    keeps_whole: bool = False
    is_composed: bool = False
    begins: bool = False

    def pre_tokenizer(self) -> PreTokenizer:
        from tokenizers import Regex, pre_tokenizers

        own = {
            PUNCTUATION: pre_tokenizers.Punctuation("contiguous"),
            DIGITS: pre_tokenizers.Digits(individual_digits=False),
            EACH_DIGIT: pre_tokenizers.Digits(individual_digits=True),
            WORDS_AS_BYTES: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        }
        steps = [own[step] if step in own else pre_tokenizers.Split(Regex(step), "isolated") for step in self.steps]
        if WORDS_AS_BYTES not in self.steps:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        return pre_tokenizers.Sequence(steps)


def _all(words: Words, names: str) -> dict[str, Words]:
    return dict.fromkeys(names.split(), words)


WORDS: Mapping[str, Words] = {
    **_all(
        Words((_GPT2,)),
        "gpt-2 gpt2 phi-2 olmo mpt exaone4 granite-docling gigachat a.x-4.0 mellum trillion jais "
        "modern-bert jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe",
    ),
    **_all(
        Words((_LLAMA3,), keeps_whole=True, begins=True),
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    ),
    **_all(Words((_LLAMA3,), keeps_whole=True), "glm4 glm5"),
    **_all(Words((_LLAMA3,)), "chatglm-bpe smaug-bpe dbrx"),
    **_all(Words((_QWEN2,), is_composed=True), "qwen2 deepseek-r1-qwen f2llmv2"),
    **_all(Words((_QWEN2,)), "stablelm2 megrez kormo hunyuan solar-open grok-2"),
    "qwen35": Words((_QWEN35,), is_composed=True),
    **_all(Words((_GPT4O,)), "gpt-4o llama4 kanana2 minimax-m2 talkie"),
    **_all(Words((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O)), "tiny_aya cohere2moe"),
    "youtu": Words(_YOUTU, keeps_whole=True),
    "tekken": Words((_TEKKEN,), keeps_whole=True),
    "kimi-k2": Words((_KIMI,)),
    "seed-coder": Words((_SEED,)),
    **_all(Words((_LING,)), "bailingmoe bailingmoe2 llada-moe"),
    "exaone-moe": Words((_EXAONE_MOE,)),
    "minicpm5": Words((r"\p{N}{1,3}", _MINICPM5), keeps_whole=True),
    "laguna": Words((_LINES, _QWEN2)),
    "jais-2": Words((_JAIS2,)),
    **_all(Words((_BLOOM,)), "bloom poro-chat gpt3-finnish"),
    "viking": Words((_BLOOM, r"\p{N}")),
    **_all(Words((r"\p{N}{1,3}", _KANA_AND_HAN, _DEEPSEEK3)), "deepseek-v3 hunyuan-dense hy_v4 joyai-llm"),
    "afmoe": Words((r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", _ASIAN, _DEEPSEEK3)),
    "spark2_5": Words((r"\p{N}{1,3}", _KANA_AND_HAN, _SPARK, r"\p{N}")),
    "deepseek-llm": Words((r"[\r\n]", rf"\s?[{_CASED}]+", rf"\s?{_SIGNS}", r"\s+$", _HAN, DIGITS)),
    "deepseek-coder": Words((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN, EACH_DIGIT)),
    "falcon": Words((PUNCTUATION, WORDS_AS_BYTES, DIGITS, "[0-9][0-9][0-9]")),
    **_all(Words((EACH_DIGIT, WORDS_AS_BYTES)), "starcoder refact smollm codeshell exaone minerva-7b mellum2"),
    "command-r": Words((EACH_DIGIT, WORDS_AS_BYTES), is_composed=True),
}
