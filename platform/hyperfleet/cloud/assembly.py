"""Assembly of a trainer from a training configuration and a data set folder, without Ray."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hyperfleet.bundle import BundleConfig, build_model
from hyperfleet.cloud.batches import BatchSource
from hyperfleet.cloud.checkpoint import BundleFiles
from hyperfleet.cloud.train_config import TrainConfig
from hyperfleet.cloud.training import Trainer
from hyperfleet.datasets import Corpus
from hyperfleet.methods import method
from hyperfleet.methods.catalogue import FRAMES_READ
from hyperfleet.nn import ENCODERS, EncoderConfig, HeadGeneratorConfig
from hyperfleet.seeding import torch_generator
from hyperfleet.tasks import task
from hyperfleet.weights import initialise


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembled:
    """A trainer, a function that opens further splits, and the files its bundles copy."""

    trainer: Trainer
    source: Callable[[str], BatchSource]
    files: BundleFiles


def encoder_config(config: TrainConfig, vocab_size: int) -> EncoderConfig:
    """Return the encoder of a run: the preset, with the number of frames that the run or its method sets."""
    encoder = ENCODERS[config.encoder](vocab_size)
    num_frames = config.num_frames or FRAMES_READ.get(config.method, encoder.num_frames)
    return dataclasses.replace(encoder, num_frames=num_frames)


def generator_config(config: TrainConfig, num_categories: int) -> HeadGeneratorConfig | None:
    """Return the method's generator, with one template per category of the data set."""
    generator = method(config.method).generator_config
    if generator is None or generator.templates is None:
        return generator
    templates = dataclasses.replace(generator.templates, num_categories=num_categories)
    return dataclasses.replace(generator, templates=templates)


def assemble(config: TrainConfig, data: Path, *, rank: int = 0, world_size: int = 1) -> Assembled:
    """Open the data set and build model and trainer; every worker gets the same weights.

    Raises:
        HyperFleetError: data or configuration cannot be used.
    """
    corpus = Corpus.open(data)
    encoder = encoder_config(config, corpus.tokenizer.vocab_size)

    def source(name: str) -> BatchSource:
        return BatchSource(
            store=corpus.store,
            split=corpus.split(
                name, encoder.text_length, config.task, config.captions_per_video if name == "train" else None
            ),
            num_frames=encoder.num_frames,
            image_size=encoder.image_size,
            random_crop=encoder.random_crop,
        )

    train = source("train")
    answers = len(corpus.vocabulary) if corpus.vocabulary is not None else None
    # One seed for all workers: they must start from the same weights.
    torch.manual_seed(torch_generator(config.seed, "weights").initial_seed())
    model = build_model(
        BundleConfig(
            task=config.task,
            method=config.method,
            seed=config.seed,
            num_classes=task(config.task).num_outputs(answers),
            encoder=encoder,
            generator=generator_config(config, int(train.split.category.max()) + 1),
        )
    )
    checkpoint = Path(config.pretrained) if config.pretrained is not None else None
    origin = initialise(model.device, tokenizer=corpus.tokenizer, checkpoint=checkpoint)
    trainer = Trainer(
        config=config,
        model=model,
        train=train,
        validation=source("val"),
        rank=rank,
        world_size=world_size,
        weights_origin=origin.describe(),
    )
    files = BundleFiles(
        tokenizer=corpus.tokenizer_file, answers=corpus.answers_file if corpus.vocabulary else None
    )
    return Assembled(trainer=trainer, source=source, files=files)
