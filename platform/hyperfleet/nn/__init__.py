"""The networks: All-in-One encoder, device model, and the parts of head generators."""

from hyperfleet.nn.adain import adain as adain
from hyperfleet.nn.anchor_reasoner import AnchorReasoner as AnchorReasoner
from hyperfleet.nn.anchor_reasoner import AnchorReasonerConfig as AnchorReasonerConfig
from hyperfleet.nn.device_model import DeviceModel as DeviceModel
from hyperfleet.nn.device_model import Readout as Readout
from hyperfleet.nn.device_model import head_layout as head_layout
from hyperfleet.nn.encoder import AllInOneEncoder as AllInOneEncoder
from hyperfleet.nn.encoder_config import ENCODERS as ENCODERS
from hyperfleet.nn.encoder_config import EncoderConfig as EncoderConfig
from hyperfleet.nn.encoder_config import all_in_one_ti as all_in_one_ti
from hyperfleet.nn.head_form import HeadForm as HeadForm
from hyperfleet.nn.head_form import apply_heads as apply_heads
from hyperfleet.nn.head_generator import HeadGenerator as HeadGenerator
from hyperfleet.nn.head_generator import HeadGeneratorConfig as HeadGeneratorConfig
from hyperfleet.nn.sequence_reader import SequenceReader as SequenceReader
from hyperfleet.nn.sequence_reader import SequenceReaderConfig as SequenceReaderConfig
from hyperfleet.nn.template_bank import TemplateBank as TemplateBank
from hyperfleet.nn.template_bank import TemplateBankConfig as TemplateBankConfig
