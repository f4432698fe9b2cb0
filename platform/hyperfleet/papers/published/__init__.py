"""What the two papers print, cell by cell, and the exact values behind those cells.

Printed values are kept as the papers print them, as text, so that a digit is never invented. Where
our copy of a paper lost a cell, `printed` is None ("not legible in our copy") and only the computed
value is shown. Sizes are in KiB and rates in MiB/s although the papers write KB and MB/s: with
powers of two, and only with them, the printed delays follow from the printed sizes.
"""

from hyperfleet.papers.published.counts import ENCODER_PARAMS as ENCODER_PARAMS
from hyperfleet.papers.published.counts import (
    MULTIPLE_CHOICE_DEVICE_PARAMS as MULTIPLE_CHOICE_DEVICE_PARAMS,
)
from hyperfleet.papers.published.counts import (
    MULTIPLE_CHOICE_GENERATOR_PARAMS as MULTIPLE_CHOICE_GENERATOR_PARAMS,
)
from hyperfleet.papers.published.counts import MULTIPLE_CHOICE_LAYOUT as MULTIPLE_CHOICE_LAYOUT
from hyperfleet.papers.published.counts import NUM_CLASSES as NUM_CLASSES
from hyperfleet.papers.published.counts import TRUNK_PARAMS as TRUNK_PARAMS
from hyperfleet.papers.published.counts import device_params as device_params
from hyperfleet.papers.published.counts import generator_params as generator_params
from hyperfleet.papers.published.delays import DELAYS as DELAYS
from hyperfleet.papers.published.delays import DOWNLOAD_KIB as DOWNLOAD_KIB
from hyperfleet.papers.published.delays import UPLOAD_KIB as UPLOAD_KIB
from hyperfleet.papers.published.delays import PublishedDelay as PublishedDelay
from hyperfleet.papers.published.delays import delay_ms as delay_ms
from hyperfleet.papers.published.duet import DUET as DUET
from hyperfleet.papers.published.duet import FLOPS as FLOPS
from hyperfleet.papers.published.duet import LATENCIES as LATENCIES
from hyperfleet.papers.published.duet import PublishedFlops as PublishedFlops
from hyperfleet.papers.published.duet import PublishedLatency as PublishedLatency
from hyperfleet.papers.published.frames import FRAMES as FRAMES
from hyperfleet.papers.published.frames import PublishedFrames as PublishedFrames
from hyperfleet.papers.published.methods import METHODS as METHODS
from hyperfleet.papers.published.methods import PublishedMethod as PublishedMethod
from hyperfleet.papers.published.methods import method as method
from hyperfleet.papers.published.notes import CDC_DELAY_TABLE_NOTE as CDC_DELAY_TABLE_NOTE
from hyperfleet.papers.published.notes import DOWNLOAD_ONLY_NOTE as DOWNLOAD_ONLY_NOTE
from hyperfleet.papers.published.notes import F_LINEAR_TGIF_NOTE as F_LINEAR_TGIF_NOTE
from hyperfleet.papers.published.notes import MC_CHANCE_NOTE as MC_CHANCE_NOTE
from hyperfleet.papers.published.notes import MC_DELAY_NOTE as MC_DELAY_NOTE
from hyperfleet.papers.published.notes import NOT_LEGIBLE as NOT_LEGIBLE
from hyperfleet.papers.published.notes import SIZE_NOTE as SIZE_NOTE
from hyperfleet.papers.published.notes import TGIF_NOTE as TGIF_NOTE
from hyperfleet.papers.published.papers import CDC_MMPG as CDC_MMPG
from hyperfleet.papers.published.papers import MSRVTT_QA as MSRVTT_QA
from hyperfleet.papers.published.papers import MSVD_QA as MSVD_QA
from hyperfleet.papers.published.papers import MULTIPLE_CHOICE as MULTIPLE_CHOICE
from hyperfleet.papers.published.papers import PAPER_TITLES as PAPER_TITLES
from hyperfleet.papers.published.papers import RETRIEVAL_DATASET as RETRIEVAL_DATASET
from hyperfleet.papers.published.papers import STABLE_SYNTH_NET as STABLE_SYNTH_NET
from hyperfleet.papers.published.papers import TABLES as TABLES
from hyperfleet.papers.published.papers import TGIF_QA as TGIF_QA
from hyperfleet.papers.published.papers import PublishedTable as PublishedTable
from hyperfleet.papers.published.papers import table as table
from hyperfleet.papers.published.retrieval import RETRIEVAL as RETRIEVAL
from hyperfleet.papers.published.retrieval import RETRIEVAL_COLUMNS as RETRIEVAL_COLUMNS
from hyperfleet.papers.published.retrieval import PublishedRetrieval as PublishedRetrieval
