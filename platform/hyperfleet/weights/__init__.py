"""Pretrained weights for device models: All-in-One checkpoints, or DeiT and BERT from local caches."""

from hyperfleet.weights.all_in_one import convert_all_in_one as convert_all_in_one
from hyperfleet.weights.conversion import ConvertedWeights as ConvertedWeights
from hyperfleet.weights.initial import RANDOM_WEIGHTS as RANDOM_WEIGHTS
from hyperfleet.weights.initial import PartOrigin as PartOrigin
from hyperfleet.weights.initial import WeightsOrigin as WeightsOrigin
from hyperfleet.weights.initial import WeightsSource as WeightsSource
from hyperfleet.weights.initial import initialise as initialise
from hyperfleet.weights.tensor_file import read_tensors as read_tensors
