"""What runs on a device: it encodes its clips, uploads one feature a question, answers with the head it gets.

A `DeviceGroup` hosts many devices, as arrays. No module here has a field for a label.
"""

from hyperfleet.device.group import DeviceGroup as DeviceGroup
from hyperfleet.device.group import EncodedSamples as EncodedSamples
from hyperfleet.device.samples import QuestionStream as QuestionStream
from hyperfleet.device.samples import Samples as Samples
from hyperfleet.device.samples import gather_samples as gather_samples
