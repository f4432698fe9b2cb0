"""Head codecs: layouts, encodings for the link, and the formula that applies received heads."""

from hyperfleet.head_codecs.base import GeneratedForm as GeneratedForm
from hyperfleet.head_codecs.base import GeneratedHeads as GeneratedHeads
from hyperfleet.head_codecs.base import HeadCodec as HeadCodec
from hyperfleet.head_codecs.catalogue import CODECS as CODECS
from hyperfleet.head_codecs.catalogue import DEFAULT_CODEC as DEFAULT_CODEC
from hyperfleet.head_codecs.catalogue import codec as codec
from hyperfleet.head_codecs.catalogue import codecs_of as codecs_of
from hyperfleet.head_codecs.heads import BaseHead as BaseHead
from hyperfleet.head_codecs.heads import Heads as Heads
from hyperfleet.head_codecs.heads import best_answer as best_answer
from hyperfleet.head_codecs.layout import HEAD_HIDDEN as HEAD_HIDDEN
from hyperfleet.head_codecs.layout import HeadLayout as HeadLayout
