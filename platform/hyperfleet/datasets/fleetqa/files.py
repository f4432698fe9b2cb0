"""Writer of the files of a FleetQA data set other than videos and clip store."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hyperfleet.datasets.annotations import QAExample, write_msrvtt_qa
from hyperfleet.datasets.corpus import SPLITS, TOKENIZER_FILE, VOCABULARY_FILE, questions_file
from hyperfleet.datasets.device_map import DeviceMap, DeviceSample
from hyperfleet.datasets.fleetqa.caption_files import CAPTION_FILES, write_captions
from hyperfleet.datasets.fleetqa.device import draw_device
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig
from hyperfleet.datasets.fleetqa.writer import ClipTruth
from hyperfleet.datasets.text import QuestionTokenizer
from hyperfleet.datasets.vocabulary import AnswerVocabulary

VIDEOS_DIR = Path("videos") / "all"

ANNOTATION_FILES = (
    *(questions_file(name) for name in SPLITS),
    *CAPTION_FILES,
    VOCABULARY_FILE,
    TOKENIZER_FILE,
    "device_map.csv",
    "devices.json",
    "scenes.json",
)


def write_annotations(root: Path, config: FleetQAConfig, truths: Sequence[ClipTruth]) -> None:
    """Write `ANNOTATION_FILES` into `root`: all tasks, vocabulary, tokenizer, devices and scenes.

    `truths` holds all clips of the data set in the order of their numbers.
    """
    splits = qa_splits(truths)
    for name, examples in splits.items():
        write_msrvtt_qa(root / questions_file(name), examples)
    vocabulary = AnswerVocabulary.from_examples(splits["train"], config.max_answers)
    (root / VOCABULARY_FILE).write_text(vocabulary.to_json(), encoding="utf-8")
    texts = [example.question for example in splits["train"]] + write_captions(root, config, truths)
    QuestionTokenizer.train(texts, config.tokenizer_vocab_size).save(root / TOKENIZER_FILE)
    devices = [draw_device(config, device_id) for device_id in range(config.num_devices)]
    samples = [_to_sample(truth) for truth in truths]
    device_map = DeviceMap.from_samples(samples, {device.device_id: device.family for device in devices})
    device_map.write(root, [asdict(device) for device in devices])
    scenes = [truth.to_record() for truth in truths]
    (root / "scenes.json").write_text(json.dumps(scenes), encoding="utf-8")


def qa_splits(truths: Sequence[ClipTruth]) -> dict[str, list[QAExample]]:
    """Number the questions of all clips as in MSRVTT-QA: train from 0 on, then val, then test."""
    splits: dict[str, list[QAExample]] = {name: [] for name in SPLITS}
    next_id = 0
    for truth in truths:
        for question, answer in truth.questions:
            example = QAExample(
                id=next_id,
                video_id=truth.plan.video_id,
                question=question,
                answer=answer,
                category_id=truth.category_id,
            )
            splits[truth.plan.split].append(example)
            next_id += 1
    return splits


def _to_sample(truth: ClipTruth) -> DeviceSample:
    plan = truth.plan
    return DeviceSample(
        client_id=plan.device_id,
        sample_path=(VIDEOS_DIR / f"{plan.video_id}.mp4").as_posix(),
        label_name=truth.scene.background,
        label_id=truth.category_id,
        split="realtime" if plan.split == "test" else "history",
        t=plan.t,
        seen=plan.seen,
    )
