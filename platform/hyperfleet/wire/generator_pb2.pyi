from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateHeadsRequest(_message.Message):
    __slots__ = ("task", "model", "features", "codec")
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    task: str
    model: str
    features: bytes
    codec: str
    def __init__(self, task: _Optional[str] = ..., model: _Optional[str] = ..., features: _Optional[bytes] = ..., codec: _Optional[str] = ...) -> None: ...

class GenerateHeadsResponse(_message.Message):
    __slots__ = ("heads", "model", "model_version", "task", "codec", "base_id", "checksum", "queue_s", "generate_s", "encode_s")
    HEADS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    BASE_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    GENERATE_S_FIELD_NUMBER: _ClassVar[int]
    ENCODE_S_FIELD_NUMBER: _ClassVar[int]
    heads: bytes
    model: str
    model_version: str
    task: str
    codec: str
    base_id: str
    checksum: str
    queue_s: float
    generate_s: float
    encode_s: float
    def __init__(self, heads: _Optional[bytes] = ..., model: _Optional[str] = ..., model_version: _Optional[str] = ..., task: _Optional[str] = ..., codec: _Optional[str] = ..., base_id: _Optional[str] = ..., checksum: _Optional[str] = ..., queue_s: _Optional[float] = ..., generate_s: _Optional[float] = ..., encode_s: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "version", "run_id", "task", "method", "num_classes", "hidden", "feature_dim", "head_bytes", "max_features", "base_id", "codecs", "default_codec")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    NUM_CLASSES_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    FEATURE_DIM_FIELD_NUMBER: _ClassVar[int]
    HEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_FEATURES_FIELD_NUMBER: _ClassVar[int]
    BASE_ID_FIELD_NUMBER: _ClassVar[int]
    CODECS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_CODEC_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    run_id: str
    task: str
    method: str
    num_classes: int
    hidden: int
    feature_dim: int
    head_bytes: int
    max_features: int
    base_id: str
    codecs: _containers.RepeatedCompositeFieldContainer[CodecInfo]
    default_codec: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., run_id: _Optional[str] = ..., task: _Optional[str] = ..., method: _Optional[str] = ..., num_classes: _Optional[int] = ..., hidden: _Optional[int] = ..., feature_dim: _Optional[int] = ..., head_bytes: _Optional[int] = ..., max_features: _Optional[int] = ..., base_id: _Optional[str] = ..., codecs: _Optional[_Iterable[_Union[CodecInfo, _Mapping]]] = ..., default_codec: _Optional[str] = ...) -> None: ...

class CodecInfo(_message.Message):
    __slots__ = ("name", "head_bytes", "needs_base")
    NAME_FIELD_NUMBER: _ClassVar[int]
    HEAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    NEEDS_BASE_FIELD_NUMBER: _ClassVar[int]
    name: str
    head_bytes: int
    needs_base: bool
    def __init__(self, name: _Optional[str] = ..., head_bytes: _Optional[int] = ..., needs_base: _Optional[bool] = ...) -> None: ...

class GetBaseRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GetBaseResponse(_message.Message):
    __slots__ = ("base", "base_id", "model_version", "checksum")
    BASE_FIELD_NUMBER: _ClassVar[int]
    BASE_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    base: bytes
    base_id: str
    model_version: str
    checksum: str
    def __init__(self, base: _Optional[bytes] = ..., base_id: _Optional[str] = ..., model_version: _Optional[str] = ..., checksum: _Optional[str] = ...) -> None: ...
