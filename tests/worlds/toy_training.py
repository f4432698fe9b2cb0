"""Sixteen clips of one grey level each and questions about them for every task, with tiny models to train."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hyperfleet.bundle import BundleConfig, build_model
from hyperfleet.cloud.assembly import encoder_config, generator_config
from hyperfleet.cloud.batches import BatchSource
from hyperfleet.cloud.checkpoint import BundleFiles
from hyperfleet.cloud.training import TrainConfig, Trainer
from hyperfleet.nn.encoder_config import tiny
from hyperfleet.tasks import MULTIPLE_CHOICE, OPEN_ENDED_QA, RETRIEVAL, task

# Four answers occur; the others leave room for factors of rank 8.
NUM_ANSWERS = 11
NUM_CLASSES = NUM_ANSWERS + 1
NUM_CLIPS, NUM_LEVELS, NUM_CANDIDATES = 16, 4, 5
TEXT_LENGTH = 4
# Shared embedding of retrieval; at the usual 256, generating its heads would take most of the time.
EMBEDDING_DIM = 16
CLS, SEP, QUESTION, FIRST_WORD = 1, 2, 3, 10
ENCODER = dataclasses.replace(tiny(50), image_size=32, text_length=TEXT_LENGTH, depth=1)


class Colours:
    """Clips of one grey level each; questions ask for the level's quarter."""

    num_stored_frames = 6

    def frames(self, rows: np.ndarray, frame_index: np.ndarray) -> np.ndarray:
        level = (rows * 16).astype(np.uint8)[:, None, None, None, None]
        return np.broadcast_to(level, (len(rows), frame_index.shape[1], 36, 36, 3)).copy()


@dataclass
class Split:
    example_id: np.ndarray
    device_id: np.ndarray
    clip_row: np.ndarray
    token_ids: np.ndarray
    token_mask: np.ndarray
    label: np.ndarray
    category: np.ndarray


def split(num_samples: int, task_name: str = OPEN_ENDED_QA) -> Split:
    """Return samples about the clips in turn; their category is the level's quarter, whatever the task."""
    number = np.arange(num_samples)
    rows = number % NUM_CLIPS
    quarter = rows // (NUM_CLIPS // NUM_LEVELS)
    if task_name == OPEN_ENDED_QA:
        word, label = np.full(num_samples, QUESTION), quarter
    elif task_name == MULTIPLE_CHOICE:
        # The true candidate names the quarter; its position does not follow from the clip.
        label = number * 7 // 3 % NUM_CANDIDATES
        word = FIRST_WORD + (quarter[:, None] + np.arange(NUM_CANDIDATES) - label[:, None]) % NUM_CANDIDATES
    else:
        word, label = FIRST_WORD + rows, rows
    token_ids = np.zeros((*word.shape, TEXT_LENGTH), dtype=np.int32)
    token_ids[..., 0], token_ids[..., 1], token_ids[..., 2] = CLS, word, SEP
    return Split(
        example_id=1000 + number,
        device_id=rows // 2,
        clip_row=rows,
        token_ids=token_ids,
        token_mask=token_ids > 0,
        label=label.astype(np.int64),
        category=quarter.astype(np.int64),
    )


def source(
    num_samples: int = 32, task_name: str = OPEN_ENDED_QA, num_frames: int = ENCODER.num_frames
) -> BatchSource:
    return BatchSource(
        store=Colours(),
        split=split(num_samples, task_name),
        num_frames=num_frames,
        image_size=ENCODER.image_size,
    )


def trainer(**changes: object) -> Trainer:
    """Return a trainer of an untrained model on the toy data, with the fields of `TrainConfig` changed."""
    config = TrainConfig(**{"batch_size": 8, "warm_epochs": 2, "epochs": 2, **changes})  # type: ignore[arg-type]
    num_frames = encoder_config(config, ENCODER.vocab_size).num_frames
    num_outputs = task(config.task).num_outputs(NUM_ANSWERS) if config.task != RETRIEVAL else EMBEDDING_DIM
    torch.manual_seed(config.seed)
    model = build_model(
        BundleConfig(
            task=config.task,
            method=config.method,
            seed=config.seed,
            num_classes=num_outputs,
            encoder=dataclasses.replace(ENCODER, num_frames=num_frames),
            generator=generator_config(config, NUM_LEVELS),
        )
    )
    train, validation = (source(32, config.task, num_frames) for _ in range(2))
    return Trainer(config=config, model=model, train=train, validation=validation)


def bundle_files(folder: Path) -> BundleFiles:
    """Write the two files that bundles copy; nothing here reads them."""
    (folder / "t.json").write_text("{}")
    (folder / "a.json").write_text("{}")
    return BundleFiles(tokenizer=folder / "t.json", answers=folder / "a.json")


TASK_NAMES = (OPEN_ENDED_QA, MULTIPLE_CHOICE, RETRIEVAL)
