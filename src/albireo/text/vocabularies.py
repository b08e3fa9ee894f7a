"""Which files of a directory hold its vocabulary, and how a tokenizer is built of them.

Called by tokenizer_files.py. Of several in a directory the first is read: it says most. A tokenizer.json says all there
is to say; the others leave to their class what is done to a text, and only classes named here are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from albireo.errors import ModelError, short
from albireo.json_file import read_json
from albireo.text import byte_level_files, ctc_files, sentence_pieces, tekken, tiktoken_file, word_pieces
from albireo.text.sentence_pieces import PieceClass

if TYPE_CHECKING:
    import tokenizers

_T = TypeVar("_T")

TOKENIZER_JSON = "tokenizer.json"
VOCAB_TXT = "vocab.txt"
SOUND_FILES = ("preprocessor_config.json", "processor_config.json")
_PIECES = ("tokenizer.model", "spiece.model", "spm.model", "sentencepiece.bpe.model")
_RANKS = ("tiktoken.model", "hy.tiktoken", "qwen.tiktoken")
#: Files that hold a vocabulary, the first that are there.
VOCABULARIES = (
    (TOKENIZER_JSON,),
    (tekken.TEKKEN,),
    (byte_level_files.VOCAB, byte_level_files.MERGES),
    # what a model has that hears, whose vocab.json is one of characters: as it was saved once, and now
    *((byte_level_files.VOCAB, name) for name in SOUND_FILES),
    *((name,) for name in (*_PIECES, *_RANKS, VOCAB_TXT)),
)
CONVERT = "Convert it with transformers: AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)"

#: Class of tokenizers by model_type of config.json, where tokenizer_config.json names none.
_CLASS_OF_MODELS = {
    **dict.fromkeys(("bert", "ernie", "nomic_bert"), "BertTokenizer"),
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "t5": "T5Tokenizer",
    "gpt2": "GPT2Tokenizer",
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), "Qwen2Tokenizer"),
    **dict.fromkeys(("llama", "mistral", "mixtral"), "LlamaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2"), "GemmaTokenizer"),
    "qwen": "QWenTokenizer",
    "internlm2": "InternLM2Tokenizer",
    "internlm3": "InternLM3Tokenizer",
}


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Fields:
    build: makes the tokenizer; it is given the special tokens by role.
    roles: special tokens where tokenizer_config.json does not name them.
    chat_template: where the directory has none.
    """

    build: Callable[[Mapping[str, str]], tokenizers.Tokenizer]
    roles: Mapping[str, str]
    chat_template: str | None = None


def vocabulary_files(directory: Path) -> tuple[str, ...]:
    """Names of the files that a vocabulary is read from; none where there is none that can be read."""
    return next((names for names in VOCABULARIES if all(lexists(directory / name) for name in names)), ())


def read_vocabulary(path: Path, config: Mapping[str, Any]) -> Vocabulary | None:
    """What is to be known of a file with a vocabulary, the first of vocabulary_files(); None of a tokenizer.json.

    Args: config: of tokenizer_config.json.
    Raises: ModelError for a class of tokenizers that is not known, or a file that is damaged.
    """
    name = path.name
    if name == TOKENIZER_JSON:
        return None
    if name == tekken.TEKKEN:
        file = tekken.read_tekken(path)
        return Vocabulary(lambda _: tekken.tekken_backend(file), tekken.ROLES, tekken.chat_template(file))
    if name == byte_level_files.VOCAB and not path.with_name(byte_level_files.MERGES).exists():
        spelt = ctc_files.characters(config, path)
        return Vocabulary(lambda named: ctc_files.character_backend(path, spelt, named), ctc_files.ROLES)
    cls = _class_name(path, config)
    if name == byte_level_files.VOCAB:
        words = _known(byte_level_files.CLASSES, cls, path)
        _refuse_prefix_space(path, config)
        return Vocabulary(lambda _: byte_level_files.byte_level_backend(path, words), words.roles)
    if name in _PIECES:
        kind = _piece_class(path, cls, config)
        return Vocabulary(lambda _: sentence_pieces.piece_backend(path, config, kind), kind.roles)
    if name in _RANKS:
        ranks = _known(tiktoken_file.CLASSES, cls, path)
        return Vocabulary(lambda _: tiktoken_file.ranked_backend(path, config, ranks), ranks.roles)
    roles = _known(word_pieces.CLASSES, cls, path)
    return Vocabulary(lambda named: word_pieces.vocab_txt_backend(path, config, named, str(cls)), roles)


def _class_name(path: Path, config: Mapping[str, Any]) -> Any:
    """tokenizer_class without "Fast", or what config.json implies."""
    name = config.get("tokenizer_class")
    if name is None and (place := path.with_name("config.json")).exists():
        model_type = read_json(place).get("model_type")
        name = _CLASS_OF_MODELS.get(model_type) if isinstance(model_type, str) else None
    return name.removesuffix("Fast") if isinstance(name, str) else name


def _known(classes: Mapping[str, _T], name: Any, path: Path) -> _T:
    found = classes.get(name) if isinstance(name, str) else None
    if found is None:
        raise ModelError(
            f"{path}: does not say how text is cut into words, nor does tokenizer_class={short(name)} of "
            f"tokenizer_config.json; known are {', '.join(classes)}. {CONVERT}"
        )
    return found


def _piece_class(path: Path, name: Any, config: Mapping[str, Any]) -> PieceClass:
    """Of another class than those that are known the file says how text is cut, and add_bos_token what goes before."""
    found = sentence_pieces.CLASSES.get(name) if isinstance(name, str) else None
    if found is not None:
        return found
    if not isinstance(config.get("add_bos_token"), bool):
        raise ModelError(
            f"{path}: tokenizer_class={short(name)} of tokenizer_config.json is none of "
            f"{', '.join(sentence_pieces.CLASSES)}, and nothing says whether a text begins with BOS; set add_bos_token "
            f"to true or false there. Or: {CONVERT}"
        )
    return PieceClass()


def _refuse_prefix_space(path: Path, config: Mapping[str, Any]) -> None:
    if config.get("add_prefix_space"):
        raise ModelError(
            f"{path.with_name('tokenizer_config.json')}: add_prefix_space={short(config['add_prefix_space'])} is not "
            f"supported beside {path.name}. {CONVERT}"
        )
