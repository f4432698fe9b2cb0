"""FleetQA: a rendered video question answering data set, filmed by a fleet of different cameras."""

from hyperfleet.datasets.fleetqa.scales import SCALES as SCALES
from hyperfleet.datasets.fleetqa.scales import FleetQAConfig as FleetQAConfig
from hyperfleet.datasets.fleetqa.scales import scale as scale
