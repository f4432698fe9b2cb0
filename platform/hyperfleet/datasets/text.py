"""WordPiece tokenizer as in BERT, from the official vocabulary or trained on a corpus."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from hyperfleet.errors import ConfigError, DataError

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD_ID = 0


class QuestionTokenizer:
    """Lower-case WordPiece; a question becomes [CLS] question [SEP] and padding (id 0).

    Args:
        tokenizer: a WordPiece tokenizer with the five special tokens of BERT and [PAD] = 0.

    Raises:
        DataError: a special token is missing, or [PAD] is not 0.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
        if None in ids.values() or ids[PAD] != PAD_ID:
            raise DataError(
                f"a tokenizer needs the tokens {', '.join(SPECIAL_TOKENS)} with [PAD] = 0, got {ids}; "
                "expected the vocabulary of bert-base-uncased or a tokenizer.json written by this class"
            )
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @classmethod
    def train(cls, questions: Iterable[str], vocab_size: int) -> "QuestionTokenizer":
        """Train WordPiece on questions; equal questions give an equal tokenizer.

        Raises:
            DataError: there are no questions.
        """
        corpus = sorted(questions)
        if not corpus:
            raise DataError("a tokenizer needs questions to train on, got none")
        tokenizer = _bert_pipeline(models.WordPiece(unk_token=UNK))
        words = {word for question in corpus for word in _words(tokenizer, question)}
        # By default the trainer numbers inner letters in the order of a hash table, which differs between
        # processes, and breaks ties by these numbers. Listing the letters beforehand fixes both.
        inner_letters = sorted({f"##{letter}" for word in words for letter in word[1:]})
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size, special_tokens=[*SPECIAL_TOKENS, *inner_letters], show_progress=False
        )
        tokenizer.train_from_iterator(corpus, trainer)
        return cls(_from_vocabulary(tokenizer.get_vocab()))

    @classmethod
    def from_vocab_file(cls, path: Path) -> "QuestionTokenizer":
        """Read the vocab.txt of bert-base-uncased: one token per line, whose index is its id.

        Raises:
            DataError: the file or a special token is missing.
        """
        if not path.is_file():
            raise DataError(f"no vocabulary at {path}; expected the vocab.txt of bert-base-uncased")
        tokens = path.read_text(encoding="utf-8").splitlines()
        vocabulary = {token: index for index, token in enumerate(tokens)}
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise DataError(
                f"{path} is not a BERT vocabulary: {', '.join(missing)} missing among {len(tokens)} tokens"
            )
        return cls(_from_vocabulary(vocabulary))

    @classmethod
    def load(cls, path: Path) -> "QuestionTokenizer":
        """Read a tokenizer.json.

        Raises:
            DataError: the file is missing or not a tokenizer.
        """
        if not path.is_file():
            raise DataError(
                f"no tokenizer at {path}; `hyperfleet data render` and `hyperfleet train` write it"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise DataError(f"{path} is not a tokenizer.json: {error}") from error
        return cls(tokenizer)

    def save(self, path: Path) -> None:
        """Write tokenizer.json."""
        self._tokenizer.save(str(path))

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self._tokenizer.get_vocab_size())

    def encode(
        self, questions: Sequence[str], length: int
    ) -> tuple[Int64[np.ndarray, "n length"], Bool[np.ndarray, "n length"]]:
        """Encode questions as token ids and a mask that is True for tokens and False for padding.

        Longer questions are cut before the final [SEP].

        Raises:
            ConfigError: `length` leaves no room for a word between [CLS] and [SEP].
        """
        if length < 3:
            raise ConfigError(
                f"a question needs a text length of at least 3 ([CLS], a word, [SEP]), got {length}"
            )
        token_ids = np.full((len(questions), length), PAD_ID, np.int64)
        # The same few questions are asked about many videos.
        rows: dict[str, np.ndarray] = {}
        for index, question in enumerate(questions):
            row = rows.get(question)
            if row is None:
                row = rows[question] = self._encode_one(question, length)
            token_ids[index] = row
        return token_ids, token_ids != PAD_ID

    def _encode_one(self, question: str, length: int) -> np.ndarray:
        ids = self._tokenizer.encode(question).ids
        if len(ids) > length:
            ids = [*ids[: length - 1], ids[-1]]
        return np.array(ids + [PAD_ID] * (length - len(ids)), np.int64)


def _bert_pipeline(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _words(tokenizer: Tokenizer, question: str) -> list[str]:
    normalizer, pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    assert normalizer is not None
    assert pre_tokenizer is not None
    return [word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(question))]


def _from_vocabulary(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = _bert_pipeline(models.WordPiece(vocab=vocabulary, unk_token=UNK))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(token, vocabulary[token]) for token in (CLS, SEP)]
    )
    return tokenizer
