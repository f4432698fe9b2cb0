"""What the two papers print, cell by cell, and the exact values behind those cells.

Printed values are kept as the papers print them, as text, so that a digit is never invented. Where
our copy of a paper lost a cell, `printed` is None ("not legible in our copy") and only the computed
value is shown. Sizes are in KiB and rates in MiB/s although the papers write KB and MB/s: with
powers of two, and only with them, the printed delays follow from the printed sizes.
"""

from hyperfleet.evaluation.published.counts import ENCODER_PARAMS as ENCODER_PARAMS
from hyperfleet.evaluation.published.counts import (
    MULTIPLE_CHOICE_DEVICE_PARAMS as MULTIPLE_CHOICE_DEVICE_PARAMS,
)
from hyperfleet.evaluation.published.counts import (
    MULTIPLE_CHOICE_GENERATOR_PARAMS as MULTIPLE_CHOICE_GENERATOR_PARAMS,
)
from hyperfleet.evaluation.published.counts import MULTIPLE_CHOICE_LAYOUT as MULTIPLE_CHOICE_LAYOUT
from hyperfleet.evaluation.published.counts import NUM_CLASSES as NUM_CLASSES
from hyperfleet.evaluation.published.counts import TRUNK_PARAMS as TRUNK_PARAMS
from hyperfleet.evaluation.published.counts import device_params as device_params
from hyperfleet.evaluation.published.counts import generator_params as generator_params
from hyperfleet.evaluation.published.delays import DELAYS as DELAYS
from hyperfleet.evaluation.published.delays import DOWNLOAD_KIB as DOWNLOAD_KIB
from hyperfleet.evaluation.published.delays import UPLOAD_KIB as UPLOAD_KIB
from hyperfleet.evaluation.published.delays import PublishedDelay as PublishedDelay
from hyperfleet.evaluation.published.delays import delay_ms as delay_ms
from hyperfleet.evaluation.published.duet import DUET as DUET
from hyperfleet.evaluation.published.duet import FLOPS as FLOPS
from hyperfleet.evaluation.published.duet import LATENCIES as LATENCIES
from hyperfleet.evaluation.published.duet import PublishedFlops as PublishedFlops
from hyperfleet.evaluation.published.duet import PublishedLatency as PublishedLatency
from hyperfleet.evaluation.published.frames import FRAMES as FRAMES
from hyperfleet.evaluation.published.frames import PublishedFrames as PublishedFrames
from hyperfleet.evaluation.published.methods import METHODS as METHODS
from hyperfleet.evaluation.published.methods import PublishedMethod as PublishedMethod
from hyperfleet.evaluation.published.methods import method as method
from hyperfleet.evaluation.published.notes import CDC_DELAY_TABLE_NOTE as CDC_DELAY_TABLE_NOTE
from hyperfleet.evaluation.published.notes import DOWNLOAD_ONLY_NOTE as DOWNLOAD_ONLY_NOTE
from hyperfleet.evaluation.published.notes import F_LINEAR_TGIF_NOTE as F_LINEAR_TGIF_NOTE
from hyperfleet.evaluation.published.notes import MC_CHANCE_NOTE as MC_CHANCE_NOTE
from hyperfleet.evaluation.published.notes import MC_DELAY_NOTE as MC_DELAY_NOTE
from hyperfleet.evaluation.published.notes import NOT_LEGIBLE as NOT_LEGIBLE
from hyperfleet.evaluation.published.notes import SIZE_NOTE as SIZE_NOTE
from hyperfleet.evaluation.published.notes import TGIF_NOTE as TGIF_NOTE
from hyperfleet.evaluation.published.papers import CDC_MMPG as CDC_MMPG
from hyperfleet.evaluation.published.papers import MSRVTT_QA as MSRVTT_QA
from hyperfleet.evaluation.published.papers import MSVD_QA as MSVD_QA
from hyperfleet.evaluation.published.papers import MULTIPLE_CHOICE as MULTIPLE_CHOICE
from hyperfleet.evaluation.published.papers import PAPER_TITLES as PAPER_TITLES
from hyperfleet.evaluation.published.papers import RETRIEVAL_DATASET as RETRIEVAL_DATASET
from hyperfleet.evaluation.published.papers import STABLE_SYNTH_NET as STABLE_SYNTH_NET
from hyperfleet.evaluation.published.papers import TABLES as TABLES
from hyperfleet.evaluation.published.papers import TGIF_QA as TGIF_QA
from hyperfleet.evaluation.published.papers import PublishedTable as PublishedTable
from hyperfleet.evaluation.published.papers import table as table
from hyperfleet.evaluation.published.retrieval import RETRIEVAL as RETRIEVAL
from hyperfleet.evaluation.published.retrieval import RETRIEVAL_COLUMNS as RETRIEVAL_COLUMNS
from hyperfleet.evaluation.published.retrieval import PublishedRetrieval as PublishedRetrieval
