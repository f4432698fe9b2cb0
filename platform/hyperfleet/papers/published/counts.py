"""The exact parameter counts behind the printed ones (D-Param and C-Param)."""

from collections.abc import Mapping
from types import MappingProxyType

from hyperfleet.messages import FEATURE_DIM, HeadLayout
from hyperfleet.papers.published.papers import MSRVTT_QA, MSVD_QA, TGIF_QA

# Labels of the open-ended tasks, plus the extra class that is never a target.
NUM_CLASSES: Mapping[str, int] = MappingProxyType({MSRVTT_QA: 1501, MSVD_QA: 1001, TGIF_QA: 1541})

# All-in-One-Ti without its answer head (text 5,868,672, types 384, DeiT-Ti 5,524,416, temporal 576,
# pooler 37,056), and the static trunk of that head: Linear 192->96 and LayerNorm.
ENCODER_PARAMS = 11_431_104
TRUNK_PARAMS = FEATURE_DIM * 96 + 96 + 2 * 96

# Multiple choice scores each candidate with one linear layer from the pooled feature, and All-in-One
# keeps the two-class matching head beside it that this layer is copied from.
MULTIPLE_CHOICE_LAYOUT = HeadLayout(num_classes=1, hidden=FEATURE_DIM)
_MATCHING_HEAD_PARAMS = 2 * (FEATURE_DIM + 1)
MULTIPLE_CHOICE_DEVICE_PARAMS = ENCODER_PARAMS + MULTIPLE_CHOICE_LAYOUT.num_params + _MATCHING_HEAD_PARAMS
MULTIPLE_CHOICE_GENERATOR_PARAMS = (FEATURE_DIM + 1) * MULTIPLE_CHOICE_LAYOUT.num_params


def device_params(num_classes: int) -> int:
    """Parameters on the device (D-Param): All-in-One-Ti with its answer head of `num_classes`."""
    return ENCODER_PARAMS + TRUNK_PARAMS + HeadLayout(num_classes=num_classes).num_params


def generator_params(num_classes: int) -> int:
    """Parameters of one linear layer from a feature to a head: the C-Param of F-hyper."""
    return (FEATURE_DIM + 1) * HeadLayout(num_classes=num_classes).num_params
