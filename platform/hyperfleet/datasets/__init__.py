"""Data sets: annotations, videos, the clip store made from them, and the devices that hold them."""

from hyperfleet.datasets.clip_store import ClipStore as ClipStore
from hyperfleet.datasets.clip_store import FrameStore as FrameStore
from hyperfleet.datasets.corpus import Corpus as Corpus
from hyperfleet.datasets.device_map import DeviceMap as DeviceMap
from hyperfleet.datasets.split import QuestionStream as QuestionStream
from hyperfleet.datasets.split import Split as Split
from hyperfleet.datasets.text import QuestionTokenizer as QuestionTokenizer
from hyperfleet.datasets.vocabulary import OUT_OF_VOCABULARY as OUT_OF_VOCABULARY
from hyperfleet.datasets.vocabulary import AnswerVocabulary as AnswerVocabulary
