from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Dispatch(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DISPATCH_UNSPECIFIED: _ClassVar[Dispatch]
    DISPATCH_PULL: _ClassVar[Dispatch]
    DISPATCH_PUSH: _ClassVar[Dispatch]

class OutcomeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[OutcomeKind]
    OUTCOME_SUCCESS: _ClassVar[OutcomeKind]
    OUTCOME_FAILURE: _ClassVar[OutcomeKind]
    OUTCOME_LOSS: _ClassVar[OutcomeKind]
    OUTCOME_OUT_OF_MEMORY: _ClassVar[OutcomeKind]
    OUTCOME_RELEASE: _ClassVar[OutcomeKind]

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_OK: _ClassVar[Verdict]
    VERDICT_STALE: _ClassVar[Verdict]
    VERDICT_DUPLICATE: _ClassVar[Verdict]
    VERDICT_WRONG_STATE: _ClassVar[Verdict]
    VERDICT_UNKNOWN_TASK: _ClassVar[Verdict]
    VERDICT_INVALID: _ClassVar[Verdict]
DISPATCH_UNSPECIFIED: Dispatch
DISPATCH_PULL: Dispatch
DISPATCH_PUSH: Dispatch
OUTCOME_UNSPECIFIED: OutcomeKind
OUTCOME_SUCCESS: OutcomeKind
OUTCOME_FAILURE: OutcomeKind
OUTCOME_LOSS: OutcomeKind
OUTCOME_OUT_OF_MEMORY: OutcomeKind
OUTCOME_RELEASE: OutcomeKind
VERDICT_UNSPECIFIED: Verdict
VERDICT_OK: Verdict
VERDICT_STALE: Verdict
VERDICT_DUPLICATE: Verdict
VERDICT_WRONG_STATE: Verdict
VERDICT_UNKNOWN_TASK: Verdict
VERDICT_INVALID: Verdict

class RegisterRequest(_message.Message):
    __slots__ = ("worker_id", "host", "port", "num_gpus", "gpu_ids", "metadata", "instance_id", "slots", "labels", "dispatch", "version", "gpus_per_slot", "slot_memory_bytes", "accepts_code", "tails")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    NUM_GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_IDS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    GPUS_PER_SLOT_FIELD_NUMBER: _ClassVar[int]
    SLOT_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_CODE_FIELD_NUMBER: _ClassVar[int]
    TAILS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    host: str
    port: int
    num_gpus: int
    gpu_ids: _containers.RepeatedScalarFieldContainer[int]
    metadata: _containers.ScalarMap[str, str]
    instance_id: str
    slots: int
    labels: _containers.ScalarMap[str, str]
    dispatch: Dispatch
    version: str
    gpus_per_slot: int
    slot_memory_bytes: int
    accepts_code: bool
    tails: bool
    def __init__(self, worker_id: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., num_gpus: _Optional[int] = ..., gpu_ids: _Optional[_Iterable[int]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., instance_id: _Optional[str] = ..., slots: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., dispatch: _Optional[_Union[Dispatch, str]] = ..., version: _Optional[str] = ..., gpus_per_slot: _Optional[int] = ..., slot_memory_bytes: _Optional[int] = ..., accepts_code: bool = ..., tails: bool = ...) -> None: ...

class RegisterResponse(_message.Message):
    __slots__ = ("success", "message", "master_id", "lease_ttl_ms", "heartbeat_interval_ms", "version")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    success: bool
    message: str
    master_id: str
    lease_ttl_ms: int
    heartbeat_interval_ms: int
    version: str
    def __init__(self, success: bool = ..., message: _Optional[str] = ..., master_id: _Optional[str] = ..., lease_ttl_ms: _Optional[int] = ..., heartbeat_interval_ms: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("worker_id", "status", "current_task_id", "metrics", "instance_id", "renewals")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    RENEWALS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    status: str
    current_task_id: str
    metrics: WorkerMetrics
    instance_id: str
    renewals: _containers.RepeatedCompositeFieldContainer[Renewal]
    def __init__(self, worker_id: _Optional[str] = ..., status: _Optional[str] = ..., current_task_id: _Optional[str] = ..., metrics: _Optional[_Union[WorkerMetrics, _Mapping]] = ..., instance_id: _Optional[str] = ..., renewals: _Optional[_Iterable[_Union[Renewal, _Mapping]]] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("acknowledged", "should_continue", "revocations", "drain", "uncordoned")
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    SHOULD_CONTINUE_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    UNCORDONED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    should_continue: bool
    revocations: _containers.RepeatedCompositeFieldContainer[Revocation]
    drain: bool
    uncordoned: bool
    def __init__(self, acknowledged: bool = ..., should_continue: bool = ..., revocations: _Optional[_Iterable[_Union[Revocation, _Mapping]]] = ..., drain: bool = ..., uncordoned: bool = ...) -> None: ...

class WorkerMetrics(_message.Message):
    __slots__ = ("cpu_usage", "memory_usage", "gpu_usage", "gpu_memory", "tasks_completed", "tasks_failed", "slots_busy", "spooled_results", "gpus", "slots")
    CPU_USAGE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_FIELD_NUMBER: _ClassVar[int]
    GPU_USAGE_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_FIELD_NUMBER: _ClassVar[int]
    TASKS_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    TASKS_FAILED_FIELD_NUMBER: _ClassVar[int]
    SLOTS_BUSY_FIELD_NUMBER: _ClassVar[int]
    SPOOLED_RESULTS_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    cpu_usage: float
    memory_usage: float
    gpu_usage: float
    gpu_memory: float
    tasks_completed: int
    tasks_failed: int
    slots_busy: int
    spooled_results: int
    gpus: _containers.RepeatedCompositeFieldContainer[GpuFigures]
    slots: _containers.RepeatedCompositeFieldContainer[SlotFigures]
    def __init__(self, cpu_usage: _Optional[float] = ..., memory_usage: _Optional[float] = ..., gpu_usage: _Optional[float] = ..., gpu_memory: _Optional[float] = ..., tasks_completed: _Optional[int] = ..., tasks_failed: _Optional[int] = ..., slots_busy: _Optional[int] = ..., spooled_results: _Optional[int] = ..., gpus: _Optional[_Iterable[_Union[GpuFigures, _Mapping]]] = ..., slots: _Optional[_Iterable[_Union[SlotFigures, _Mapping]]] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("task_id", "architecture", "config", "lease_token", "epoch", "search", "attempt", "checkpoints", "timeout_ms", "progress_deadline_ms", "lease_ttl_ms", "origin", "out_of_memory", "evaluator", "code", "trace")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    architecture: str
    config: EvaluationConfig
    lease_token: str
    epoch: int
    search: str
    attempt: int
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    timeout_ms: int
    progress_deadline_ms: int
    lease_ttl_ms: int
    origin: str
    out_of_memory: int
    evaluator: str
    code: str
    trace: str
    def __init__(self, task_id: _Optional[str] = ..., architecture: _Optional[str] = ..., config: _Optional[_Union[EvaluationConfig, _Mapping]] = ..., lease_token: _Optional[str] = ..., epoch: _Optional[int] = ..., search: _Optional[str] = ..., attempt: _Optional[int] = ..., checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., timeout_ms: _Optional[int] = ..., progress_deadline_ms: _Optional[int] = ..., lease_ttl_ms: _Optional[int] = ..., origin: _Optional[str] = ..., out_of_memory: _Optional[int] = ..., evaluator: _Optional[str] = ..., code: _Optional[str] = ..., trace: _Optional[str] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("task_id", "success", "metrics", "error", "duration", "outcome")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    success: bool
    metrics: _containers.ScalarMap[str, float]
    error: str
    duration: float
    outcome: Outcome
    def __init__(self, task_id: _Optional[str] = ..., success: bool = ..., metrics: _Optional[_Mapping[str, float]] = ..., error: _Optional[str] = ..., duration: _Optional[float] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class EvaluationConfig(_message.Message):
    __slots__ = ("num_epochs", "batch_size", "learning_rate", "dataset", "gpu_id", "extra")
    class ExtraEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NUM_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    GPU_ID_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    num_epochs: int
    batch_size: int
    learning_rate: float
    dataset: str
    gpu_id: int
    extra: _containers.ScalarMap[str, str]
    def __init__(self, num_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., dataset: _Optional[str] = ..., gpu_id: _Optional[int] = ..., extra: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TaskRequest(_message.Message):
    __slots__ = ("worker_id", "max_tasks", "instance_id", "wait_ms")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_TASKS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    max_tasks: int
    instance_id: str
    wait_ms: int
    def __init__(self, worker_id: _Optional[str] = ..., max_tasks: _Optional[int] = ..., instance_id: _Optional[str] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class TaskResponse(_message.Message):
    __slots__ = ("has_task", "tasks")
    HAS_TASK_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    has_task: bool
    tasks: _containers.RepeatedCompositeFieldContainer[EvaluateRequest]
    def __init__(self, has_task: bool = ..., tasks: _Optional[_Iterable[_Union[EvaluateRequest, _Mapping]]] = ...) -> None: ...

class ResultRequest(_message.Message):
    __slots__ = ("task_id", "worker_id", "success", "metrics", "error", "duration", "architecture", "outcome")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    worker_id: str
    success: bool
    metrics: _containers.ScalarMap[str, float]
    error: str
    duration: float
    architecture: str
    outcome: Outcome
    def __init__(self, task_id: _Optional[str] = ..., worker_id: _Optional[str] = ..., success: bool = ..., metrics: _Optional[_Mapping[str, float]] = ..., error: _Optional[str] = ..., duration: _Optional[float] = ..., architecture: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ...) -> None: ...

class ResultResponse(_message.Message):
    __slots__ = ("acknowledged", "message", "verdict")
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    message: str
    verdict: Verdict
    def __init__(self, acknowledged: bool = ..., message: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("worker_id",)
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    def __init__(self, worker_id: _Optional[str] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("status", "current_task_id", "metrics", "uptime_seconds", "instance_id", "task_ids", "draining")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CURRENT_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    status: str
    current_task_id: str
    metrics: WorkerMetrics
    uptime_seconds: int
    instance_id: str
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    draining: bool
    def __init__(self, status: _Optional[str] = ..., current_task_id: _Optional[str] = ..., metrics: _Optional[_Union[WorkerMetrics, _Mapping]] = ..., uptime_seconds: _Optional[int] = ..., instance_id: _Optional[str] = ..., task_ids: _Optional[_Iterable[str]] = ..., draining: bool = ...) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("worker_id", "graceful")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    GRACEFUL_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    graceful: bool
    def __init__(self, worker_id: _Optional[str] = ..., graceful: bool = ...) -> None: ...

class ShutdownResponse(_message.Message):
    __slots__ = ("acknowledged",)
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    def __init__(self, acknowledged: bool = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("task_id", "lease_token", "reason")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_token: str
    reason: str
    def __init__(self, task_id: _Optional[str] = ..., lease_token: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ("success", "message")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    success: bool
    message: str
    def __init__(self, success: bool = ..., message: _Optional[str] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("task_id", "lease_token", "epoch", "kind", "metrics", "detail", "error_class", "error_message", "retryable", "exit_signal", "exit_code", "log_tail", "duration_seconds", "steps_start", "steps_end", "architecture", "origin", "memory", "memory_needed_bytes", "attempt", "trace", "search")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    ERROR_CLASS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    EXIT_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_START_FIELD_NUMBER: _ClassVar[int]
    STEPS_END_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    MEMORY_NEEDED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_token: str
    epoch: int
    kind: OutcomeKind
    metrics: _containers.ScalarMap[str, float]
    detail: str
    error_class: str
    error_message: str
    retryable: bool
    exit_signal: int
    exit_code: int
    log_tail: str
    duration_seconds: float
    steps_start: int
    steps_end: int
    architecture: str
    origin: str
    memory: MemoryReport
    memory_needed_bytes: int
    attempt: int
    trace: str
    search: str
    def __init__(self, task_id: _Optional[str] = ..., lease_token: _Optional[str] = ..., epoch: _Optional[int] = ..., kind: _Optional[_Union[OutcomeKind, str]] = ..., metrics: _Optional[_Mapping[str, float]] = ..., detail: _Optional[str] = ..., error_class: _Optional[str] = ..., error_message: _Optional[str] = ..., retryable: bool = ..., exit_signal: _Optional[int] = ..., exit_code: _Optional[int] = ..., log_tail: _Optional[str] = ..., duration_seconds: _Optional[float] = ..., steps_start: _Optional[int] = ..., steps_end: _Optional[int] = ..., architecture: _Optional[str] = ..., origin: _Optional[str] = ..., memory: _Optional[_Union[MemoryReport, _Mapping]] = ..., memory_needed_bytes: _Optional[int] = ..., attempt: _Optional[int] = ..., trace: _Optional[str] = ..., search: _Optional[str] = ...) -> None: ...

class MemoryReport(_message.Message):
    __slots__ = ("estimated_bytes", "limit_bytes", "peak_bytes", "batch_size", "micro_batches")
    ESTIMATED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    MICRO_BATCHES_FIELD_NUMBER: _ClassVar[int]
    estimated_bytes: int
    limit_bytes: int
    peak_bytes: int
    batch_size: int
    micro_batches: int
    def __init__(self, estimated_bytes: _Optional[int] = ..., limit_bytes: _Optional[int] = ..., peak_bytes: _Optional[int] = ..., batch_size: _Optional[int] = ..., micro_batches: _Optional[int] = ...) -> None: ...

class Renewal(_message.Message):
    __slots__ = ("task_id", "lease_token", "epoch", "progress", "origin", "attempt")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_token: str
    epoch: int
    progress: Progress
    origin: str
    attempt: int
    def __init__(self, task_id: _Optional[str] = ..., lease_token: _Optional[str] = ..., epoch: _Optional[int] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., origin: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("sequence", "step", "total_steps", "metrics")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    step: int
    total_steps: int
    metrics: _containers.ScalarMap[str, float]
    def __init__(self, sequence: _Optional[int] = ..., step: _Optional[int] = ..., total_steps: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Revocation(_message.Message):
    __slots__ = ("task_id", "lease_token", "reason")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_token: str
    reason: str
    def __init__(self, task_id: _Optional[str] = ..., lease_token: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GpuFigures(_message.Message):
    __slots__ = ("gpu", "model", "slots", "utilization", "memory_used_bytes", "memory_total_bytes", "temperature_celsius", "power_watts", "ecc_corrected", "ecc_uncorrected", "throttling", "xid_errors", "last_xid", "fault")
    GPU_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_CELSIUS_FIELD_NUMBER: _ClassVar[int]
    POWER_WATTS_FIELD_NUMBER: _ClassVar[int]
    ECC_CORRECTED_FIELD_NUMBER: _ClassVar[int]
    ECC_UNCORRECTED_FIELD_NUMBER: _ClassVar[int]
    THROTTLING_FIELD_NUMBER: _ClassVar[int]
    XID_ERRORS_FIELD_NUMBER: _ClassVar[int]
    LAST_XID_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    gpu: str
    model: str
    slots: _containers.RepeatedScalarFieldContainer[int]
    utilization: float
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_celsius: float
    power_watts: float
    ecc_corrected: int
    ecc_uncorrected: int
    throttling: _containers.RepeatedScalarFieldContainer[str]
    xid_errors: int
    last_xid: int
    fault: str
    def __init__(self, gpu: _Optional[str] = ..., model: _Optional[str] = ..., slots: _Optional[_Iterable[int]] = ..., utilization: _Optional[float] = ..., memory_used_bytes: _Optional[int] = ..., memory_total_bytes: _Optional[int] = ..., temperature_celsius: _Optional[float] = ..., power_watts: _Optional[float] = ..., ecc_corrected: _Optional[int] = ..., ecc_uncorrected: _Optional[int] = ..., throttling: _Optional[_Iterable[str]] = ..., xid_errors: _Optional[int] = ..., last_xid: _Optional[int] = ..., fault: _Optional[str] = ...) -> None: ...

class SlotFigures(_message.Message):
    __slots__ = ("slot", "state", "gpus", "cordon_reason", "task_id")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    CORDON_REASON_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    slot: int
    state: str
    gpus: _containers.RepeatedScalarFieldContainer[str]
    cordon_reason: str
    task_id: str
    def __init__(self, slot: _Optional[int] = ..., state: _Optional[str] = ..., gpus: _Optional[_Iterable[str]] = ..., cordon_reason: _Optional[str] = ..., task_id: _Optional[str] = ...) -> None: ...

class CodeRequest(_message.Message):
    __slots__ = ("search", "digest", "offset")
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    search: str
    digest: str
    offset: int
    def __init__(self, search: _Optional[str] = ..., digest: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class CodePiece(_message.Message):
    __slots__ = ("size_bytes", "data")
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    data: bytes
    def __init__(self, size_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("url", "step", "digest", "size_bytes", "epoch", "score")
    URL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    url: str
    step: int
    digest: str
    size_bytes: int
    epoch: int
    score: float
    def __init__(self, url: _Optional[str] = ..., step: _Optional[int] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ..., epoch: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class RegisterCheckpoint(_message.Message):
    __slots__ = ("task_id", "lease_token", "checkpoint")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_token: str
    checkpoint: Checkpoint
    def __init__(self, task_id: _Optional[str] = ..., lease_token: _Optional[str] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ...) -> None: ...

class CheckpointVerdict(_message.Message):
    __slots__ = ("task_id", "lease_token", "url", "verdict", "delete_urls")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DELETE_URLS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_token: str
    url: str
    verdict: Verdict
    delete_urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task_id: _Optional[str] = ..., lease_token: _Optional[str] = ..., url: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., delete_urls: _Optional[_Iterable[str]] = ...) -> None: ...

class TailRequest(_message.Message):
    __slots__ = ("task_id", "epoch", "keep_ms", "resume", "place", "worker_id", "reply_to")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEEP_MS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_TO_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    epoch: int
    keep_ms: int
    resume: bool
    place: int
    worker_id: str
    reply_to: str
    def __init__(self, task_id: _Optional[str] = ..., epoch: _Optional[int] = ..., keep_ms: _Optional[int] = ..., resume: bool = ..., place: _Optional[int] = ..., worker_id: _Optional[str] = ..., reply_to: _Optional[str] = ...) -> None: ...

class TailPiece(_message.Message):
    __slots__ = ("task_id", "epoch", "place", "data", "caught_up", "last", "trouble")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    epoch: int
    place: int
    data: bytes
    caught_up: bool
    last: bool
    trouble: str
    def __init__(self, task_id: _Optional[str] = ..., epoch: _Optional[int] = ..., place: _Optional[int] = ..., data: _Optional[bytes] = ..., caught_up: bool = ..., last: bool = ..., trouble: _Optional[str] = ...) -> None: ...

class SessionUp(_message.Message):
    __slots__ = ("hello", "want", "renewals", "outcomes", "checkpoint", "heartbeat", "goodbye", "tail")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    RENEWALS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    want: Want
    renewals: Renewals
    outcomes: Outcomes
    checkpoint: RegisterCheckpoint
    heartbeat: HeartbeatRequest
    goodbye: Goodbye
    tail: TailPiece
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., want: _Optional[_Union[Want, _Mapping]] = ..., renewals: _Optional[_Union[Renewals, _Mapping]] = ..., outcomes: _Optional[_Union[Outcomes, _Mapping]] = ..., checkpoint: _Optional[_Union[RegisterCheckpoint, _Mapping]] = ..., heartbeat: _Optional[_Union[HeartbeatRequest, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., tail: _Optional[_Union[TailPiece, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("worker", "held")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    worker: RegisterRequest
    held: _containers.RepeatedCompositeFieldContainer[Renewal]
    def __init__(self, worker: _Optional[_Union[RegisterRequest, _Mapping]] = ..., held: _Optional[_Iterable[_Union[Renewal, _Mapping]]] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: int
    def __init__(self, slots: _Optional[int] = ...) -> None: ...

class Renewals(_message.Message):
    __slots__ = ("renewals",)
    RENEWALS_FIELD_NUMBER: _ClassVar[int]
    renewals: _containers.RepeatedCompositeFieldContainer[Renewal]
    def __init__(self, renewals: _Optional[_Iterable[_Union[Renewal, _Mapping]]] = ...) -> None: ...

class Outcomes(_message.Message):
    __slots__ = ("outcomes", "want_slots")
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    WANT_SLOTS_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    want_slots: int
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., want_slots: _Optional[int] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class SessionDown(_message.Message):
    __slots__ = ("welcome", "tasks", "outcome_verdicts", "checkpoint_verdict", "revocations", "drain", "renewals_done", "discard", "tail")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_VERDICTS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_VERDICT_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    RENEWALS_DONE_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    tasks: Tasks
    outcome_verdicts: OutcomeVerdicts
    checkpoint_verdict: CheckpointVerdict
    revocations: Revocations
    drain: Drain
    renewals_done: RenewalsDone
    discard: Discard
    tail: TailRequest
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., tasks: _Optional[_Union[Tasks, _Mapping]] = ..., outcome_verdicts: _Optional[_Union[OutcomeVerdicts, _Mapping]] = ..., checkpoint_verdict: _Optional[_Union[CheckpointVerdict, _Mapping]] = ..., revocations: _Optional[_Union[Revocations, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., renewals_done: _Optional[_Union[RenewalsDone, _Mapping]] = ..., discard: _Optional[_Union[Discard, _Mapping]] = ..., tail: _Optional[_Union[TailRequest, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("master_id", "lease_ttl_ms", "heartbeat_interval_ms", "grace_ms", "version")
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    master_id: str
    lease_ttl_ms: int
    heartbeat_interval_ms: int
    grace_ms: int
    version: str
    def __init__(self, master_id: _Optional[str] = ..., lease_ttl_ms: _Optional[int] = ..., heartbeat_interval_ms: _Optional[int] = ..., grace_ms: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class Tasks(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[EvaluateRequest]
    def __init__(self, tasks: _Optional[_Iterable[_Union[EvaluateRequest, _Mapping]]] = ...) -> None: ...

class OutcomeVerdicts(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[OutcomeVerdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[OutcomeVerdict, _Mapping]]] = ...) -> None: ...

class OutcomeVerdict(_message.Message):
    __slots__ = ("task_id", "lease_token", "verdict", "delete_urls", "message")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DELETE_URLS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    lease_token: str
    verdict: Verdict
    delete_urls: _containers.RepeatedScalarFieldContainer[str]
    message: str
    def __init__(self, task_id: _Optional[str] = ..., lease_token: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., delete_urls: _Optional[_Iterable[str]] = ..., message: _Optional[str] = ...) -> None: ...

class Revocations(_message.Message):
    __slots__ = ("revocations",)
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    revocations: _containers.RepeatedCompositeFieldContainer[Revocation]
    def __init__(self, revocations: _Optional[_Iterable[_Union[Revocation, _Mapping]]] = ...) -> None: ...

class RenewalsDone(_message.Message):
    __slots__ = ("renewed",)
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    renewed: int
    def __init__(self, renewed: _Optional[int] = ...) -> None: ...

class Discard(_message.Message):
    __slots__ = ("urls",)
    URLS_FIELD_NUMBER: _ClassVar[int]
    urls: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, urls: _Optional[_Iterable[str]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("cordon", "reason", "active")
    CORDON_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    cordon: bool
    reason: str
    active: bool
    def __init__(self, cordon: bool = ..., reason: _Optional[str] = ..., active: bool = ...) -> None: ...
