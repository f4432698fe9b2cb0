"""Printed numbers of the two papers, cell by cell.

Values are text, exactly as printed. If a cell is not legible in our copy of a paper, its value is None and
only the computed value is shown. Sizes are in KiB and rates in MiB/s although the papers write KB and MB/s:
only with powers of two do the printed delays follow from the printed sizes.
"""

from hyperfleet.papers.published.delays import DELAYS as DELAYS
from hyperfleet.papers.published.delays import DOWNLOAD_KIB as DOWNLOAD_KIB
from hyperfleet.papers.published.delays import UPLOAD_KIB as UPLOAD_KIB
from hyperfleet.papers.published.delays import delay_ms as delay_ms
from hyperfleet.papers.published.duet import DUET as DUET
from hyperfleet.papers.published.duet import FLOPS as FLOPS
from hyperfleet.papers.published.duet import LATENCIES as LATENCIES
from hyperfleet.papers.published.duet import PublishedLatency as PublishedLatency
from hyperfleet.papers.published.frames import FRAMES as FRAMES
from hyperfleet.papers.published.frames import PublishedFrames as PublishedFrames
from hyperfleet.papers.published.methods import METHODS as METHODS
from hyperfleet.papers.published.methods import PublishedMethod as PublishedMethod
from hyperfleet.papers.published.notes import DOWNLOAD_ONLY_NOTE as DOWNLOAD_ONLY_NOTE
from hyperfleet.papers.published.notes import TGIF_NOTE as TGIF_NOTE
from hyperfleet.papers.published.papers import CDC_MMPG as CDC_MMPG
from hyperfleet.papers.published.papers import MSRVTT_QA as MSRVTT_QA
from hyperfleet.papers.published.papers import MSVD_QA as MSVD_QA
from hyperfleet.papers.published.papers import MULTIPLE_CHOICE as MULTIPLE_CHOICE
from hyperfleet.papers.published.papers import NUM_CLASSES as NUM_CLASSES
from hyperfleet.papers.published.papers import PAPER_TITLES as PAPER_TITLES
from hyperfleet.papers.published.papers import RETRIEVAL_DATASET as RETRIEVAL_DATASET
from hyperfleet.papers.published.papers import STABLE_SYNTH_NET as STABLE_SYNTH_NET
from hyperfleet.papers.published.papers import TABLES as TABLES
from hyperfleet.papers.published.papers import TGIF_QA as TGIF_QA
from hyperfleet.papers.published.papers import table as table
from hyperfleet.papers.published.retrieval import RETRIEVAL as RETRIEVAL
from hyperfleet.papers.published.retrieval import RETRIEVAL_COLUMNS as RETRIEVAL_COLUMNS
