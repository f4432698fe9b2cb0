"""Device side: encoding of clips and questions into features. No module here has a field for a label."""

from hyperfleet.device.group import DeviceGroup as DeviceGroup
from hyperfleet.device.group import EncodedSamples as EncodedSamples
from hyperfleet.device.samples import Samples as Samples
from hyperfleet.device.samples import gather_samples as gather_samples
