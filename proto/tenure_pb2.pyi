from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_STATE_UNSPECIFIED: _ClassVar[TaskState]
    SCHEDULED: _ClassVar[TaskState]
    QUEUED: _ClassVar[TaskState]
    LEASED: _ClassVar[TaskState]
    SUCCEEDED: _ClassVar[TaskState]
    FAILED: _ClassVar[TaskState]
    CANCELLED: _ClassVar[TaskState]
TASK_STATE_UNSPECIFIED: TaskState
SCHEDULED: TaskState
QUEUED: TaskState
LEASED: TaskState
SUCCEEDED: TaskState
FAILED: TaskState
CANCELLED: TaskState

class Config(_message.Message):
    __slots__ = ("num_epochs", "batch_size", "learning_rate", "dataset", "extra")
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
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    num_epochs: int
    batch_size: int
    learning_rate: float
    dataset: str
    extra: _containers.ScalarMap[str, str]
    def __init__(self, num_epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., dataset: _Optional[str] = ..., extra: _Optional[_Mapping[str, str]] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("key", "architecture", "config", "priority", "max_attempts", "max_losses", "timeout_ms", "progress_deadline_ms", "delay_ms", "requirements", "max_out_of_memory", "evaluator", "code", "trace")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOSSES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    key: str
    architecture: str
    config: Config
    priority: int
    max_attempts: int
    max_losses: int
    timeout_ms: int
    progress_deadline_ms: int
    delay_ms: int
    requirements: Requirements
    max_out_of_memory: int
    evaluator: str
    code: str
    trace: str
    def __init__(self, key: _Optional[str] = ..., architecture: _Optional[str] = ..., config: _Optional[_Union[Config, _Mapping]] = ..., priority: _Optional[int] = ..., max_attempts: _Optional[int] = ..., max_losses: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., progress_deadline_ms: _Optional[int] = ..., delay_ms: _Optional[int] = ..., requirements: _Optional[_Union[Requirements, _Mapping]] = ..., max_out_of_memory: _Optional[int] = ..., evaluator: _Optional[str] = ..., code: _Optional[str] = ..., trace: _Optional[str] = ...) -> None: ...

class Requirements(_message.Message):
    __slots__ = ("gpus", "labels", "memory_bytes")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    GPUS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    gpus: int
    labels: _containers.ScalarMap[str, str]
    memory_bytes: int
    def __init__(self, gpus: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., memory_bytes: _Optional[int] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("search", "tasks")
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    search: str
    tasks: _containers.RepeatedCompositeFieldContainer[TaskSpec]
    def __init__(self, search: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[TaskSpec, _Mapping]]] = ...) -> None: ...

class SubmitResponse(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Submitted]
    def __init__(self, tasks: _Optional[_Iterable[_Union[Submitted, _Mapping]]] = ...) -> None: ...

class Submitted(_message.Message):
    __slots__ = ("task_id", "key", "created", "state")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    key: str
    created: bool
    state: TaskState
    def __init__(self, task_id: _Optional[str] = ..., key: _Optional[str] = ..., created: bool = ..., state: _Optional[_Union[TaskState, str]] = ...) -> None: ...

class GetTasksRequest(_message.Message):
    __slots__ = ("task_ids", "full")
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    full: bool
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ..., full: bool = ...) -> None: ...

class GetTasksResponse(_message.Message):
    __slots__ = ("tasks", "unknown_ids")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_IDS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    unknown_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., unknown_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("task_id", "search", "key", "state", "priority", "attempts", "max_attempts", "losses", "max_losses", "out_of_memory", "epoch", "worker_id", "cancel_requested", "submitted_unix_ms", "leased_unix_ms", "ended_unix_ms", "metrics", "detail", "duration_seconds", "failure", "progress", "checkpoint", "lease_left_ms", "scheduled_in_ms", "resumes", "requirements", "max_out_of_memory", "rule_attempts", "trace", "architecture", "config", "attempt_records", "evaluator", "code")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class RuleAttemptsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LOSSES_FIELD_NUMBER: _ClassVar[int]
    MAX_LOSSES_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LEASED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_MS_FIELD_NUMBER: _ClassVar[int]
    SCHEDULED_IN_MS_FIELD_NUMBER: _ClassVar[int]
    RESUMES_FIELD_NUMBER: _ClassVar[int]
    REQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUT_OF_MEMORY_FIELD_NUMBER: _ClassVar[int]
    RULE_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_RECORDS_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    search: str
    key: str
    state: TaskState
    priority: int
    attempts: int
    max_attempts: int
    losses: int
    max_losses: int
    out_of_memory: int
    epoch: int
    worker_id: str
    cancel_requested: bool
    submitted_unix_ms: int
    leased_unix_ms: int
    ended_unix_ms: int
    metrics: _containers.ScalarMap[str, float]
    detail: str
    duration_seconds: float
    failure: Failure
    progress: ProgressReport
    checkpoint: CheckpointRef
    lease_left_ms: int
    scheduled_in_ms: int
    resumes: int
    requirements: Requirements
    max_out_of_memory: int
    rule_attempts: _containers.ScalarMap[str, int]
    trace: str
    architecture: str
    config: Config
    attempt_records: _containers.RepeatedCompositeFieldContainer[AttemptRecord]
    evaluator: str
    code: str
    def __init__(self, task_id: _Optional[str] = ..., search: _Optional[str] = ..., key: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ..., priority: _Optional[int] = ..., attempts: _Optional[int] = ..., max_attempts: _Optional[int] = ..., losses: _Optional[int] = ..., max_losses: _Optional[int] = ..., out_of_memory: _Optional[int] = ..., epoch: _Optional[int] = ..., worker_id: _Optional[str] = ..., cancel_requested: bool = ..., submitted_unix_ms: _Optional[int] = ..., leased_unix_ms: _Optional[int] = ..., ended_unix_ms: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., detail: _Optional[str] = ..., duration_seconds: _Optional[float] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., progress: _Optional[_Union[ProgressReport, _Mapping]] = ..., checkpoint: _Optional[_Union[CheckpointRef, _Mapping]] = ..., lease_left_ms: _Optional[int] = ..., scheduled_in_ms: _Optional[int] = ..., resumes: _Optional[int] = ..., requirements: _Optional[_Union[Requirements, _Mapping]] = ..., max_out_of_memory: _Optional[int] = ..., rule_attempts: _Optional[_Mapping[str, int]] = ..., trace: _Optional[str] = ..., architecture: _Optional[str] = ..., config: _Optional[_Union[Config, _Mapping]] = ..., attempt_records: _Optional[_Iterable[_Union[AttemptRecord, _Mapping]]] = ..., evaluator: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("error_class", "message", "retryable")
    ERROR_CLASS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    error_class: str
    message: str
    retryable: bool
    def __init__(self, error_class: _Optional[str] = ..., message: _Optional[str] = ..., retryable: bool = ...) -> None: ...

class ProgressReport(_message.Message):
    __slots__ = ("step", "total_steps", "metrics", "reported_unix_ms")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_STEPS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    REPORTED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    step: int
    total_steps: int
    metrics: _containers.ScalarMap[str, float]
    reported_unix_ms: int
    def __init__(self, step: _Optional[int] = ..., total_steps: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., reported_unix_ms: _Optional[int] = ...) -> None: ...

class CheckpointRef(_message.Message):
    __slots__ = ("url", "step", "size_bytes", "epoch")
    URL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    url: str
    step: int
    size_bytes: int
    epoch: int
    def __init__(self, url: _Optional[str] = ..., step: _Optional[int] = ..., size_bytes: _Optional[int] = ..., epoch: _Optional[int] = ...) -> None: ...

class AttemptRecord(_message.Message):
    __slots__ = ("epoch", "worker_id", "outcome", "leased_unix_ms", "ended_unix_ms", "error_class", "error_message", "exit_signal", "exit_code", "log_tail", "steps_start", "steps_end", "duration_seconds", "memory")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    LEASED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_CLASS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EXIT_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    LOG_TAIL_FIELD_NUMBER: _ClassVar[int]
    STEPS_START_FIELD_NUMBER: _ClassVar[int]
    STEPS_END_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    worker_id: str
    outcome: str
    leased_unix_ms: int
    ended_unix_ms: int
    error_class: str
    error_message: str
    exit_signal: int
    exit_code: int
    log_tail: str
    steps_start: int
    steps_end: int
    duration_seconds: float
    memory: MemoryReport
    def __init__(self, epoch: _Optional[int] = ..., worker_id: _Optional[str] = ..., outcome: _Optional[str] = ..., leased_unix_ms: _Optional[int] = ..., ended_unix_ms: _Optional[int] = ..., error_class: _Optional[str] = ..., error_message: _Optional[str] = ..., exit_signal: _Optional[int] = ..., exit_code: _Optional[int] = ..., log_tail: _Optional[str] = ..., steps_start: _Optional[int] = ..., steps_end: _Optional[int] = ..., duration_seconds: _Optional[float] = ..., memory: _Optional[_Union[MemoryReport, _Mapping]] = ...) -> None: ...

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

class ListTasksRequest(_message.Message):
    __slots__ = ("search", "states", "page_size", "page_token")
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    search: str
    states: _containers.RepeatedScalarFieldContainer[TaskState]
    page_size: int
    page_token: str
    def __init__(self, search: _Optional[str] = ..., states: _Optional[_Iterable[_Union[TaskState, str]]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTasksResponse(_message.Message):
    __slots__ = ("tasks", "next_page_token")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    next_page_token: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TaskIds(_message.Message):
    __slots__ = ("task_ids",)
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class TaskVerdicts(_message.Message):
    __slots__ = ("verdicts",)
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[TaskVerdict]
    def __init__(self, verdicts: _Optional[_Iterable[_Union[TaskVerdict, _Mapping]]] = ...) -> None: ...

class TaskVerdict(_message.Message):
    __slots__ = ("task_id", "verdict", "state")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    verdict: str
    state: TaskState
    def __init__(self, task_id: _Optional[str] = ..., verdict: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("search", "cursor")
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    search: str
    cursor: str
    def __init__(self, search: _Optional[str] = ..., cursor: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("cursor", "events")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    cursor: str
    events: _containers.RepeatedCompositeFieldContainer[TaskEvent]
    def __init__(self, cursor: _Optional[str] = ..., events: _Optional[_Iterable[_Union[TaskEvent, _Mapping]]] = ...) -> None: ...

class TaskEvent(_message.Message):
    __slots__ = ("task_id", "search", "transition", "state", "at_unix_ms", "worker_id", "epoch")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    TRANSITION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    search: str
    transition: str
    state: TaskState
    at_unix_ms: int
    worker_id: str
    epoch: int
    def __init__(self, task_id: _Optional[str] = ..., search: _Optional[str] = ..., transition: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ..., at_unix_ms: _Optional[int] = ..., worker_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class TailTaskRequest(_message.Message):
    __slots__ = ("task_id", "follow", "epoch", "place")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    follow: bool
    epoch: int
    place: int
    def __init__(self, task_id: _Optional[str] = ..., follow: bool = ..., epoch: _Optional[int] = ..., place: _Optional[int] = ...) -> None: ...

class TailTaskResponse(_message.Message):
    __slots__ = ("run", "output", "note", "end")
    RUN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    run: TailRun
    output: TailOutput
    note: str
    end: TailEnd
    def __init__(self, run: _Optional[_Union[TailRun, _Mapping]] = ..., output: _Optional[_Union[TailOutput, _Mapping]] = ..., note: _Optional[str] = ..., end: _Optional[_Union[TailEnd, _Mapping]] = ...) -> None: ...

class TailRun(_message.Message):
    __slots__ = ("epoch", "worker_id", "attempt")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    worker_id: str
    attempt: int
    def __init__(self, epoch: _Optional[int] = ..., worker_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class TailOutput(_message.Message):
    __slots__ = ("epoch", "place", "data", "left_out_bytes", "recorded")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    place: int
    data: bytes
    left_out_bytes: int
    recorded: bool
    def __init__(self, epoch: _Optional[int] = ..., place: _Optional[int] = ..., data: _Optional[bytes] = ..., left_out_bytes: _Optional[int] = ..., recorded: bool = ...) -> None: ...

class TailEnd(_message.Message):
    __slots__ = ("state", "failure", "exit_signal", "exit_code")
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    EXIT_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    state: TaskState
    failure: Failure
    exit_signal: int
    exit_code: int
    def __init__(self, state: _Optional[_Union[TaskState, str]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., exit_signal: _Optional[int] = ..., exit_code: _Optional[int] = ...) -> None: ...

class PutSearchRequest(_message.Message):
    __slots__ = ("name", "priority", "weight", "max_leased", "architecture_format", "retry", "default_retry", "evaluator", "code")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASED_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_RETRY_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    priority: int
    weight: float
    max_leased: int
    architecture_format: str
    retry: RetryPolicy
    default_retry: bool
    evaluator: str
    code: str
    def __init__(self, name: _Optional[str] = ..., priority: _Optional[int] = ..., weight: _Optional[float] = ..., max_leased: _Optional[int] = ..., architecture_format: _Optional[str] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., default_retry: bool = ..., evaluator: _Optional[str] = ..., code: _Optional[str] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("base_ms", "max_ms", "multiplier", "jitter", "rules")
    BASE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    base_ms: int
    max_ms: int
    multiplier: float
    jitter: str
    rules: _containers.RepeatedCompositeFieldContainer[RetryRule]
    def __init__(self, base_ms: _Optional[int] = ..., max_ms: _Optional[int] = ..., multiplier: _Optional[float] = ..., jitter: _Optional[str] = ..., rules: _Optional[_Iterable[_Union[RetryRule, _Mapping]]] = ...) -> None: ...

class RetryRule(_message.Message):
    __slots__ = ("error_class", "retryable", "max_attempts", "base_ms", "max_ms", "multiplier", "jitter")
    ERROR_CLASS_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    BASE_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    error_class: str
    retryable: bool
    max_attempts: int
    base_ms: int
    max_ms: int
    multiplier: float
    jitter: str
    def __init__(self, error_class: _Optional[str] = ..., retryable: bool = ..., max_attempts: _Optional[int] = ..., base_ms: _Optional[int] = ..., max_ms: _Optional[int] = ..., multiplier: _Optional[float] = ..., jitter: _Optional[str] = ...) -> None: ...

class SearchName(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ComputeTime(_message.Message):
    __slots__ = ("useful_ms", "saved_ms", "wasted_ms")
    class SavedMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class WastedMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    USEFUL_MS_FIELD_NUMBER: _ClassVar[int]
    SAVED_MS_FIELD_NUMBER: _ClassVar[int]
    WASTED_MS_FIELD_NUMBER: _ClassVar[int]
    useful_ms: int
    saved_ms: _containers.ScalarMap[str, int]
    wasted_ms: _containers.ScalarMap[str, int]
    def __init__(self, useful_ms: _Optional[int] = ..., saved_ms: _Optional[_Mapping[str, int]] = ..., wasted_ms: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Search(_message.Message):
    __slots__ = ("name", "priority", "weight", "max_leased", "architecture_format", "status", "created_unix_ms", "tasks", "oldest_queued_ms", "last_ended_unix_ms", "best_fitness", "best_task_id", "retry", "evaluator", "code", "compute")
    class TasksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MAX_LEASED_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CREATED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_QUEUED_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_ENDED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    BEST_FITNESS_FIELD_NUMBER: _ClassVar[int]
    BEST_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    EVALUATOR_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    name: str
    priority: int
    weight: float
    max_leased: int
    architecture_format: str
    status: str
    created_unix_ms: int
    tasks: _containers.ScalarMap[str, int]
    oldest_queued_ms: int
    last_ended_unix_ms: int
    best_fitness: float
    best_task_id: str
    retry: RetryPolicy
    evaluator: str
    code: str
    compute: ComputeTime
    def __init__(self, name: _Optional[str] = ..., priority: _Optional[int] = ..., weight: _Optional[float] = ..., max_leased: _Optional[int] = ..., architecture_format: _Optional[str] = ..., status: _Optional[str] = ..., created_unix_ms: _Optional[int] = ..., tasks: _Optional[_Mapping[str, int]] = ..., oldest_queued_ms: _Optional[int] = ..., last_ended_unix_ms: _Optional[int] = ..., best_fitness: _Optional[float] = ..., best_task_id: _Optional[str] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., evaluator: _Optional[str] = ..., code: _Optional[str] = ..., compute: _Optional[_Union[ComputeTime, _Mapping]] = ...) -> None: ...

class CodeName(_message.Message):
    __slots__ = ("search", "digest")
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    search: str
    digest: str
    def __init__(self, search: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class PutCodeRequest(_message.Message):
    __slots__ = ("search", "digest", "size_bytes", "offset", "data")
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    search: str
    digest: str
    size_bytes: int
    offset: int
    data: bytes
    def __init__(self, search: _Optional[str] = ..., digest: _Optional[str] = ..., size_bytes: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class CodeState(_message.Message):
    __slots__ = ("whole", "received_bytes")
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    whole: bool
    received_bytes: int
    def __init__(self, whole: bool = ..., received_bytes: _Optional[int] = ...) -> None: ...

class ListSearchesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListSearchesResponse(_message.Message):
    __slots__ = ("searches",)
    SEARCHES_FIELD_NUMBER: _ClassVar[int]
    searches: _containers.RepeatedCompositeFieldContainer[Search]
    def __init__(self, searches: _Optional[_Iterable[_Union[Search, _Mapping]]] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ("all",)
    ALL_FIELD_NUMBER: _ClassVar[int]
    all: bool
    def __init__(self, all: bool = ...) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers",)
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ...) -> None: ...

class WorkerName(_message.Message):
    __slots__ = ("worker_id",)
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    def __init__(self, worker_id: _Optional[str] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("worker_id", "instance_id", "status", "mode", "host", "port", "slots", "slots_busy", "num_gpus", "gpu_ids", "labels", "dispatch", "version", "registered_unix_ms", "last_seen_ms_ago", "cpu_percent", "memory_percent", "gpu_percent", "gpu_memory_percent", "tasks_completed", "tasks_failed", "current_task_id", "leases", "gpus_per_slot", "gpus", "slot_list", "accepts_code", "slot_memory_bytes")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_BUSY_FIELD_NUMBER: _ClassVar[int]
    NUM_GPUS_FIELD_NUMBER: _ClassVar[int]
    GPU_IDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DISPATCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REGISTERED_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEEN_MS_AGO_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PERCENT_FIELD_NUMBER: _ClassVar[int]
    GPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_PERCENT_FIELD_NUMBER: _ClassVar[int]
    TASKS_COMPLETED_FIELD_NUMBER: _ClassVar[int]
    TASKS_FAILED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    GPUS_PER_SLOT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    SLOT_LIST_FIELD_NUMBER: _ClassVar[int]
    ACCEPTS_CODE_FIELD_NUMBER: _ClassVar[int]
    SLOT_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    instance_id: str
    status: str
    mode: str
    host: str
    port: int
    slots: int
    slots_busy: int
    num_gpus: int
    gpu_ids: _containers.RepeatedScalarFieldContainer[int]
    labels: _containers.ScalarMap[str, str]
    dispatch: str
    version: str
    registered_unix_ms: int
    last_seen_ms_ago: int
    cpu_percent: float
    memory_percent: float
    gpu_percent: float
    gpu_memory_percent: float
    tasks_completed: int
    tasks_failed: int
    current_task_id: str
    leases: int
    gpus_per_slot: int
    gpus: _containers.RepeatedCompositeFieldContainer[GpuStatus]
    slot_list: _containers.RepeatedCompositeFieldContainer[SlotStatus]
    accepts_code: bool
    slot_memory_bytes: int
    def __init__(self, worker_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., status: _Optional[str] = ..., mode: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., slots: _Optional[int] = ..., slots_busy: _Optional[int] = ..., num_gpus: _Optional[int] = ..., gpu_ids: _Optional[_Iterable[int]] = ..., labels: _Optional[_Mapping[str, str]] = ..., dispatch: _Optional[str] = ..., version: _Optional[str] = ..., registered_unix_ms: _Optional[int] = ..., last_seen_ms_ago: _Optional[int] = ..., cpu_percent: _Optional[float] = ..., memory_percent: _Optional[float] = ..., gpu_percent: _Optional[float] = ..., gpu_memory_percent: _Optional[float] = ..., tasks_completed: _Optional[int] = ..., tasks_failed: _Optional[int] = ..., current_task_id: _Optional[str] = ..., leases: _Optional[int] = ..., gpus_per_slot: _Optional[int] = ..., gpus: _Optional[_Iterable[_Union[GpuStatus, _Mapping]]] = ..., slot_list: _Optional[_Iterable[_Union[SlotStatus, _Mapping]]] = ..., accepts_code: bool = ..., slot_memory_bytes: _Optional[int] = ...) -> None: ...

class GpuStatus(_message.Message):
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

class SlotStatus(_message.Message):
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

class StatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ("tasks", "workers_live", "slots", "slots_busy", "leases_live", "lease_clock_ms", "oldest_queued_ms", "master_id", "version", "store", "durability", "counters", "compute")
    class TasksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TASKS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_LIVE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_BUSY_FIELD_NUMBER: _ClassVar[int]
    LEASES_LIVE_FIELD_NUMBER: _ClassVar[int]
    LEASE_CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_QUEUED_MS_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    DURABILITY_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.ScalarMap[str, int]
    workers_live: int
    slots: int
    slots_busy: int
    leases_live: int
    lease_clock_ms: int
    oldest_queued_ms: int
    master_id: str
    version: str
    store: str
    durability: str
    counters: _containers.ScalarMap[str, int]
    compute: ComputeTime
    def __init__(self, tasks: _Optional[_Mapping[str, int]] = ..., workers_live: _Optional[int] = ..., slots: _Optional[int] = ..., slots_busy: _Optional[int] = ..., leases_live: _Optional[int] = ..., lease_clock_ms: _Optional[int] = ..., oldest_queued_ms: _Optional[int] = ..., master_id: _Optional[str] = ..., version: _Optional[str] = ..., store: _Optional[str] = ..., durability: _Optional[str] = ..., counters: _Optional[_Mapping[str, int]] = ..., compute: _Optional[_Union[ComputeTime, _Mapping]] = ...) -> None: ...

class FsckRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FsckResponse(_message.Message):
    __slots__ = ("tasks_checked", "violations")
    TASKS_CHECKED_FIELD_NUMBER: _ClassVar[int]
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    tasks_checked: int
    violations: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tasks_checked: _Optional[int] = ..., violations: _Optional[_Iterable[str]] = ...) -> None: ...
