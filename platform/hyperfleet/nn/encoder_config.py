"""Configuration of the All-in-One encoder, with its two presets."""

from dataclasses import dataclass

from hyperfleet.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Shape and regularization of an All-in-One encoder (https://arxiv.org/abs/2203.07303).

    Defaults are All-in-One-Ti: DeiT-Ti blocks over 224-pixel frames and BERT-style embeddings.
    The feature width is fixed at 192, so that every preset uploads 768 bytes.

    `shuffle_patches` permutes the patches of each frame before token rolling, as All-in-One does:
    at random in training; at inference in one fixed order per frame, so that results repeat
    (the original permutes at random there too, which makes two passes over one input differ).

    `random_crop` crops training frames at a random place of the stored ones instead of the center.

    Raises:
        ConfigError: a size that is not positive, or an image not divisible into patches.
    """

    name: str = "all_in_one_ti"
    image_size: int = 224
    patch_size: int = 16
    depth: int = 12
    num_heads: int = 3
    mlp_ratio: float = 4.0
    num_frames: int = 3
    text_length: int = 40
    vocab_size: int = 30522
    dropout: float = 0.1
    drop_path: float = 0.1
    head_dropout: float = 0.5
    shuffle_patches: bool = True
    random_crop: bool = True

    def __post_init__(self) -> None:
        from hyperfleet.messages import FEATURE_DIM  # not above: presets are named without torch

        for field in ("image_size", "patch_size", "depth", "num_heads", "num_frames", "vocab_size"):
            if getattr(self, field) < 1:
                raise ConfigError(f"EncoderConfig.{field} must be at least 1, got {getattr(self, field)}")
        if self.text_length < 3:
            raise ConfigError(f"EncoderConfig.text_length must hold [CLS] word [SEP], got {self.text_length}")
        if self.image_size % self.patch_size:
            raise ConfigError(
                f"EncoderConfig.image_size must be a multiple of patch_size {self.patch_size}, "
                f"got {self.image_size}"
            )
        if FEATURE_DIM % self.num_heads:
            raise ConfigError(f"EncoderConfig.num_heads must divide {FEATURE_DIM}, got {self.num_heads}")

    @property
    def num_patches(self) -> int:
        """Patches in one frame."""
        return (self.image_size // self.patch_size) ** 2


def all_in_one_ti(vocab_size: int = 30522) -> EncoderConfig:
    """The encoder of both papers: 11,431,104 parameters with the BERT vocabulary of 30,522."""
    return EncoderConfig(vocab_size=vocab_size)


def tiny(vocab_size: int = 30522) -> EncoderConfig:
    """A small All-in-One for CPUs: the same architecture and feature width, 64-pixel frames, 2 blocks.

    Dropout and drop path are off: it is trained for few steps, where they only slow it down.
    """
    return EncoderConfig(
        name="tiny",
        image_size=64,
        depth=2,
        mlp_ratio=2.0,
        text_length=14,
        vocab_size=vocab_size,
        dropout=0.0,
        drop_path=0.0,
        head_dropout=0.0,
        shuffle_patches=False,
        # Each of its 16 patches is a quarter of the image wide: a shifted crop spreads a detail over several.
        random_crop=False,
    )


ENCODERS = {"tiny": tiny, "all_in_one_ti": all_in_one_ti}
