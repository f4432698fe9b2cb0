"""The networks: All-in-One encoder, device model, AnchorFrame Distribution Reasoner, head generator."""

from hyperfleet.nn.adain import adain as adain
from hyperfleet.nn.anchor_reasoner import AnchorReasoner as AnchorReasoner
from hyperfleet.nn.anchor_reasoner import AnchorReasonerConfig as AnchorReasonerConfig
from hyperfleet.nn.device_model import DeviceModel as DeviceModel
from hyperfleet.nn.device_model import apply_heads as apply_heads
from hyperfleet.nn.encoder import AllInOneEncoder as AllInOneEncoder
from hyperfleet.nn.encoder_config import ENCODERS as ENCODERS
from hyperfleet.nn.encoder_config import EncoderConfig as EncoderConfig
from hyperfleet.nn.head_generator import HeadGenerator as HeadGenerator
from hyperfleet.nn.head_generator import HeadGeneratorConfig as HeadGeneratorConfig
