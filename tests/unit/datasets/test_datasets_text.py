from pathlib import Path

import pytest

from hyperfleet.datasets.annotations import QAExample
from hyperfleet.datasets.text import PAD_ID, SPECIAL_TOKENS, QuestionTokenizer
from hyperfleet.datasets.vocabulary import OUT_OF_VOCABULARY, AnswerVocabulary
from hyperfleet.errors import ConfigError, DataError

QUESTIONS = ["what color is the circle?", "where does the star move?", "how many objects are in the video?"]


def _examples(*answers: str) -> list[QAExample]:
    return [
        QAExample(id=number, video_id="video0", question="what?", answer=answer)
        for number, answer in enumerate(answers)
    ]


def test_vocabulary_keeps_the_most_frequent_in_alphabetical_order() -> None:
    vocabulary = AnswerVocabulary.from_examples(
        _examples("sky", "red", "red", "sky", "blue", "ant"), max_size=3
    )

    # ant and blue are equally rare: the alphabet decides.
    assert vocabulary.answers == ("ant", "red", "sky")
    assert vocabulary.num_classes == 4
    assert vocabulary.index("red") == 1
    assert vocabulary.index("blue") == OUT_OF_VOCABULARY == -1


def test_vocabulary_survives_the_ans2label_form() -> None:
    vocabulary = AnswerVocabulary.from_examples(_examples("sky", "red"))

    assert vocabulary.to_json() == '{"red": 0, "sky": 1}'
    assert AnswerVocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize("text", ["{", "[]", '{"red": 0, "sky": 2}', '{"red": 0, "sky": 0}', "{}"])
def test_broken_vocabulary_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ans2label.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"ans2label\.json"):
        AnswerVocabulary.read(path)


def test_vocabulary_needs_examples_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got none"):
        AnswerVocabulary.from_examples([])
    with pytest.raises(DataError, match="hyperfleet data render"):
        AnswerVocabulary.read(tmp_path / "nowhere.json")


def test_questions_become_padded_token_ids() -> None:
    tokenizer = QuestionTokenizer.train(QUESTIONS, vocab_size=200)

    token_ids, mask = tokenizer.encode([QUESTIONS[0].upper(), QUESTIONS[2]], 12)

    # [CLS] what color is the circle ? [SEP]: whole words, since there is room for them
    assert mask.sum(axis=1).tolist() == [8, 10]
    assert token_ids[0, [0, 7]].tolist() == [2, 3]
    assert (token_ids[~mask] == PAD_ID).all()
    assert token_ids.max() < tokenizer.vocab_size


def test_long_questions_keep_their_end_mark() -> None:
    tokenizer = QuestionTokenizer.train(QUESTIONS, vocab_size=200)

    token_ids, mask = tokenizer.encode(QUESTIONS, 5)

    assert mask.all()
    assert (token_ids[:, -1] == 3).all()
    with pytest.raises(ConfigError, match="text length of at least 3"):
        tokenizer.encode(QUESTIONS, 2)


def test_training_a_tokenizer_repeats_and_survives_saving(tmp_path: Path) -> None:
    tokenizer = QuestionTokenizer.train(QUESTIONS, vocab_size=60)
    tokenizer.save(tmp_path / "a.json")
    QuestionTokenizer.train(QUESTIONS[::-1], vocab_size=60).save(tmp_path / "b.json")

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    loaded = QuestionTokenizer.load(tmp_path / "a.json")
    assert loaded.encode(QUESTIONS, 16)[0].tolist() == tokenizer.encode(QUESTIONS, 16)[0].tolist()


def test_official_vocabulary_file_is_read(tmp_path: Path) -> None:
    # The layout of bert-base-uncased: [PAD] first, the other special tokens further down.
    tokens = [
        "[PAD]",
        *(f"[unused{number}]" for number in range(99)),
        *SPECIAL_TOKENS[1:],
        "what",
        "##ever",
        "?",
    ]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n")

    token_ids, _ = QuestionTokenizer.from_vocab_file(path).encode(["Whatever?"], 6)

    assert token_ids.tolist() == [[101, 104, 105, 106, 102, 0]]


def test_files_that_are_no_tokenizer_are_refused(tmp_path: Path) -> None:
    words, broken = tmp_path / "vocab.txt", tmp_path / "tokenizer.json"
    words.write_text("what\nwhere\n")
    broken.write_text("{}")

    with pytest.raises(DataError, match="is not a BERT vocabulary"):
        QuestionTokenizer.from_vocab_file(words)
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        QuestionTokenizer.load(broken)
    with pytest.raises(DataError, match="no tokenizer at"):
        QuestionTokenizer.load(tmp_path / "nowhere.json")
