"""The names that a pickle may import and stay plain: constructors of tensors, plain data, trainers' records.

None runs, imports or opens anything that its arguments name. Trainers and optimisers leave such files beside
honest fine-tunes; a name that is not here counts against the file, whatever it does.
"""

from __future__ import annotations

import re

from detector.unpickler import Imported

_TORCH = (
    "FloatStorage HalfStorage BFloat16Storage DoubleStorage LongStorage IntStorage ShortStorage CharStorage "
    "ByteStorage BoolStorage Size Tensor device bool float32 float16 bfloat16 float64 float8_e4m3fn "
    "float8_e5m2 int64 int32 int16 int8 uint8 uint16 uint32 uint64 complex64"
)
_REBUILD = (
    "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state "
    "_rebuild_device_tensor_from_numpy _rebuild_wrapper_subclass"
)
_PLAIN = "set frozenset bytes bytearray dict list tuple int float bool str complex slice range"
_SHARDED = (
    "Metadata TensorStorageMetadata BytesStorageMetadata TensorProperties ChunkStorageMetadata MetadataIndex "
    "StorageMeta"
)
_PATHS = "PosixPath PurePosixPath WindowsPath PureWindowsPath"
_NUMPY_CORES = ("numpy.core", "numpy._core")

ENUMERATIONS = frozenset(
    {
        *(
            Imported("transformers.trainer_utils", f"{name}Strategy")
            for name in ("Hub", "Interval", "Save", "Evaluation")
        ),
        *(Imported("transformers.trainer_utils", name) for name in ("SchedulerType", "FSDPOption")),
        *(Imported("transformers.training_args", name) for name in ("OptimizerNames", "ParallelMode")),
        Imported("transformers.debug_utils", "DebugOption"),
        Imported("accelerate.utils.dataclasses", "DistributedType"),
        Imported("torch.distributed.checkpoint.metadata", "_MEM_FORMAT_ENCODING"),
        Imported("deepspeed.runtime.zero.config", "ZeroStageEnum"),
        Imported("torchao.quantization.quant_primitives", "ZeroPointDomain"),
    }
)
"""Their members may be fetched by name as well."""

_MADE = {
    # What transformers' Trainer leaves in training_args.bin beside its fine-tunes: records.
    Imported("transformers.trainer_pt_utils", "AcceleratorConfig"),
    Imported("transformers.generation.configuration_utils", "GenerationConfig"),
    *(
        Imported(module, name)
        for module in (
            "transformers.integrations.deepspeed",
            "transformers.integrations",
            "transformers.deepspeed",
        )
        for name in ("HfTrainerDeepSpeedConfig", "HfDeepSpeedConfig")
    ),
    Imported("accelerate.state", "PartialState"),
    *(
        Imported("accelerate.utils.dataclasses", name)
        for name in ("DeepSpeedPlugin", "FullyShardedDataParallelPlugin", "GradientAccumulationPlugin")
    ),
}
_EXACT = (
    ENUMERATIONS
    | _MADE
    | {
        *(Imported("torch", name) for name in _TORCH.split()),
        *(Imported("torch.storage", name) for name in ("UntypedStorage", "TypedStorage")),
        *(Imported("torch._utils", name) for name in _REBUILD.split()),
        Imported("torch._tensor", "_rebuild_from_type_v2"),
        Imported("torch.nn.parameter", "Parameter"),
        Imported("torch.serialization", "_get_layout"),
        *(Imported("collections", name) for name in ("OrderedDict", "defaultdict", "Counter", "deque")),
        *(Imported(module, name) for module in ("builtins", "__builtin__") for name in _PLAIN.split()),
        *(Imported("numpy", name) for name in ("dtype", "ndarray")),
        *(
            Imported(f"{core}.multiarray", name)
            for core in _NUMPY_CORES
            for name in ("_reconstruct", "scalar")
        ),
        *(Imported(f"{core}.numeric", "_frombuffer") for core in _NUMPY_CORES),
        Imported("_codecs", "encode"),
        *(Imported("datetime", name) for name in ("timedelta", "datetime", "date")),
        *(Imported(module, name) for module in ("pathlib", "pathlib._local") for name in _PATHS.split()),
        Imported("argparse", "Namespace"),
        # Sharded checkpoints: the `.metadata` of torch, the states of DeepSpeed.
        *(Imported("torch.distributed.checkpoint.metadata", name) for name in _SHARDED.split()),
        *(
            Imported("torch.distributed.checkpoint.filesystem", name)
            for name in ("_StorageInfo", "_StoragePrefix")
        ),
        *(
            Imported("deepspeed.runtime.fp16.loss_scaler", name)
            for name in ("LossScaler", "DynamicLossScaler")
        ),
        Imported("deepspeed.utils.tensor_fragment", "fragment_address"),
    }
)

_FRAMEWORKS = (
    "transformers|trl|sentence_transformers|axolotl|llamafactory|llmtuner|swift|alignment"
    "|open_instruct|unsloth"
)
_RECORDS = re.compile(
    # The settings of a training run, under the name of whose they are; scripts keep their own in __main__.
    rf"(?:(?:{_FRAMEWORKS})(?:\.\w+)*|__main__|Unsloth\w+Trainer)\ \w*(?:Config|Arguments|Args)",
    re.ASCII | re.VERBOSE,
)
_QUANTISED = re.compile(
    # Tensors of torchao, which has no other format.
    r"torchao(?:\.\w+)+\ (?:[A-Z]\w*(?:Tensor|TensorImpl|Layout|Config|Granularity|Type)"
    r"|_int8_a?symm_\w+_quant)",
    re.ASCII | re.VERBOSE,
)


def is_plain(what: Imported) -> bool:
    """Whether the name only builds data."""
    return what in _EXACT or is_record(what) or _QUANTISED.fullmatch(_joined(what)) is not None


def is_record(what: Imported) -> bool:
    """Whether it is a record, which pickle makes without calling it: some read files when they are called."""
    return what in _MADE or _RECORDS.fullmatch(_joined(what)) is not None


def _joined(what: Imported) -> str:
    return f"{what.module} {what.name}"
