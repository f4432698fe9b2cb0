"""CDC-MMPG: Fast Domain Adaptor (FDA) and AnchorFrame Distribution Reasoner (ADR)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hyperfleet.errors import ConfigError
from hyperfleet.methods.base import WARM, Stage, VideoQAModel
from hyperfleet.methods.fine_tuning import static_logits
from hyperfleet.nn import HeadGenerator, apply_heads
from hyperfleet.tasks.open_ended_qa import answer_loss

# Between 1/sqrt(192) and 1/192, see `Stage.generator_rate`: docs/decisions/0006.
GENERATOR_RATE = 0.02

REASON, ADAPT = "reason", "adapt"


def generator_of(model: VideoQAModel) -> HeadGenerator:
    """Return the model's generator.

    Raises:
        ConfigError: the model was built without one.
    """
    if model.generator is None:
        raise ConfigError(
            "cdc_mmpg needs a model with a head generator, got one without; build it for this method"
        )
    return model.generator


def random_anchor(features: Float[Tensor, "sample frame 192"]) -> Float[Tensor, "sample 192"]:
    """Pick one frame of each sample at random, as the training of the ADR asks (CDC-MMPG, section 3.3)."""
    num_samples, num_frames = features.shape[:2]
    frame = torch.randint(num_frames, (num_samples,), device=features.device)
    return features[torch.arange(num_samples, device=features.device), frame]


class CdcMmpg:
    """The first paper's method, in three stages.

    `warm` trains the static model (the option warm_start=finetune; literally the paper fits the ADR
    to an encoder that has not moved yet), `reason` fits the ADR to the frozen encoder's features
    (equations 14, 15 and 17), `adapt` trains the generator with the encoder, the ADR frozen.
    """

    name = "cdc_mmpg"
    personalizes = True

    def stages(self, *, warm_epochs: int, epochs: int, learning_rate: float) -> tuple[Stage, ...]:
        """Warm start, ADR, then FDA with the device model."""
        return (
            Stage(name=WARM, trains=("device",), epochs=warm_epochs, learning_rate=learning_rate),
            Stage(name=REASON, trains=("generator.adr",), epochs=4 * epochs, learning_rate=learning_rate),
            Stage(
                name=ADAPT,
                trains=("device", "generator.f_p", "generator.f_h"),
                epochs=epochs,
                learning_rate=learning_rate / 2,
                generator_rate=GENERATOR_RATE,
            ),
        )

    def losses(
        self,
        model: VideoQAModel,
        stage: str,
        features: Float[Tensor, "sample frame 192"],
        labels: Int[Tensor, " sample"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Loss of one stage; the anchor is a random frame of each sample."""
        if stage == WARM:
            return {"answer": answer_loss(static_logits(model, features), labels)}
        generator = generator_of(model)
        anchor = random_anchor(features)
        if stage == REASON:
            if generator.adr is None:
                raise ConfigError(
                    "the stage 'reason' trains the ADR, but the generator has none; leave the stage out"
                )
            return generator.adr.losses(anchor, features.mean(dim=1))
        return {"answer": answer_loss(self.logits(model, features, anchor), labels)}

    def logits(
        self,
        model: VideoQAModel,
        features: Float[Tensor, "sample frame 192"],
        anchor: Float[Tensor, "sample 192"],
    ) -> Float[Tensor, "sample class"]:
        """Generate a head from each anchor and apply it to the averaged feature (equations 6, 7 and 11)."""
        generator = generator_of(model)
        device = model.device
        hidden = device.hidden(features.mean(dim=1))
        offset = generator.offset(generator.reason(anchor))
        if not generator.config.static_base:
            return apply_heads(offset, hidden, generator.layout)
        # W0 phi + dW phi: the static part needs no copy of W0 a sample.
        static: Tensor = device.head(hidden)
        return static + apply_heads(offset, hidden, generator.layout)
