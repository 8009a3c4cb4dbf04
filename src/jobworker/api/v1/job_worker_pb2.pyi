import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_STARTING: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_STOPPING: _ClassVar[JobState]
    JOB_STATE_ENDED: _ClassVar[JobState]

class EndReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    END_REASON_UNSPECIFIED: _ClassVar[EndReason]
    END_REASON_EXITED: _ClassVar[EndReason]
    END_REASON_SIGNALED: _ClassVar[EndReason]
    END_REASON_STOPPED: _ClassVar[EndReason]
    END_REASON_TIMED_OUT: _ClassVar[EndReason]
    END_REASON_OOM_KILLED: _ClassVar[EndReason]
    END_REASON_OUTPUT_LIMIT: _ClassVar[EndReason]
    END_REASON_START_FAILED: _ClassVar[EndReason]
    END_REASON_LOST: _ClassVar[EndReason]

class OutputStream(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTPUT_STREAM_UNSPECIFIED: _ClassVar[OutputStream]
    OUTPUT_STREAM_STDOUT: _ClassVar[OutputStream]
    OUTPUT_STREAM_STDERR: _ClassVar[OutputStream]

class OnOutputLimit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_OUTPUT_LIMIT_UNSPECIFIED: _ClassVar[OnOutputLimit]
    ON_OUTPUT_LIMIT_STOP: _ClassVar[OnOutputLimit]
    ON_OUTPUT_LIMIT_DISCARD: _ClassVar[OnOutputLimit]

class Isolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ISOLATION_UNSPECIFIED: _ClassVar[Isolation]
    ISOLATION_NONE: _ClassVar[Isolation]
    ISOLATION_PRIVATE: _ClassVar[Isolation]
    ISOLATION_OFFLINE: _ClassVar[Isolation]

class Resource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESOURCE_UNSPECIFIED: _ClassVar[Resource]
    RESOURCE_CPU: _ClassVar[Resource]
    RESOURCE_MEMORY: _ClassVar[Resource]
    RESOURCE_TASKS: _ClassVar[Resource]
    RESOURCE_IO_READ_BYTES: _ClassVar[Resource]
    RESOURCE_IO_WRITE_BYTES: _ClassVar[Resource]
    RESOURCE_IO_READ_OPS: _ClassVar[Resource]
    RESOURCE_IO_WRITE_OPS: _ClassVar[Resource]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_STARTING: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_STOPPING: JobState
JOB_STATE_ENDED: JobState
END_REASON_UNSPECIFIED: EndReason
END_REASON_EXITED: EndReason
END_REASON_SIGNALED: EndReason
END_REASON_STOPPED: EndReason
END_REASON_TIMED_OUT: EndReason
END_REASON_OOM_KILLED: EndReason
END_REASON_OUTPUT_LIMIT: EndReason
END_REASON_START_FAILED: EndReason
END_REASON_LOST: EndReason
OUTPUT_STREAM_UNSPECIFIED: OutputStream
OUTPUT_STREAM_STDOUT: OutputStream
OUTPUT_STREAM_STDERR: OutputStream
ON_OUTPUT_LIMIT_UNSPECIFIED: OnOutputLimit
ON_OUTPUT_LIMIT_STOP: OnOutputLimit
ON_OUTPUT_LIMIT_DISCARD: OnOutputLimit
ISOLATION_UNSPECIFIED: Isolation
ISOLATION_NONE: Isolation
ISOLATION_PRIVATE: Isolation
ISOLATION_OFFLINE: Isolation
RESOURCE_UNSPECIFIED: Resource
RESOURCE_CPU: Resource
RESOURCE_MEMORY: Resource
RESOURCE_TASKS: Resource
RESOURCE_IO_READ_BYTES: Resource
RESOURCE_IO_WRITE_BYTES: Resource
RESOURCE_IO_READ_OPS: Resource
RESOURCE_IO_WRITE_OPS: Resource

class Limits(_message.Message):
    __slots__ = ("cpu_millis", "memory_bytes", "tasks", "io_read_bytes_per_s", "io_write_bytes_per_s", "io_read_ops_per_s", "io_write_ops_per_s")
    CPU_MILLIS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    IO_READ_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    IO_WRITE_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    IO_READ_OPS_PER_S_FIELD_NUMBER: _ClassVar[int]
    IO_WRITE_OPS_PER_S_FIELD_NUMBER: _ClassVar[int]
    cpu_millis: int
    memory_bytes: int
    tasks: int
    io_read_bytes_per_s: int
    io_write_bytes_per_s: int
    io_read_ops_per_s: int
    io_write_ops_per_s: int
    def __init__(self, cpu_millis: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., tasks: _Optional[int] = ..., io_read_bytes_per_s: _Optional[int] = ..., io_write_bytes_per_s: _Optional[int] = ..., io_read_ops_per_s: _Optional[int] = ..., io_write_ops_per_s: _Optional[int] = ...) -> None: ...

class EffectiveLimit(_message.Message):
    __slots__ = ("resource", "requested", "effective", "device", "note")
    RESOURCE_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    resource: Resource
    requested: int
    effective: int
    device: str
    note: str
    def __init__(self, resource: _Optional[_Union[Resource, str]] = ..., requested: _Optional[int] = ..., effective: _Optional[int] = ..., device: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class LimitChange(_message.Message):
    __slots__ = ("changed_at", "changed_by", "before", "after", "effective_limits", "outcome_unknown")
    CHANGED_AT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_BY_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_LIMITS_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    changed_at: _timestamp_pb2.Timestamp
    changed_by: str
    before: Limits
    after: Limits
    effective_limits: _containers.RepeatedCompositeFieldContainer[EffectiveLimit]
    outcome_unknown: bool
    def __init__(self, changed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., changed_by: _Optional[str] = ..., before: _Optional[_Union[Limits, _Mapping]] = ..., after: _Optional[_Union[Limits, _Mapping]] = ..., effective_limits: _Optional[_Iterable[_Union[EffectiveLimit, _Mapping]]] = ..., outcome_unknown: _Optional[bool] = ...) -> None: ...

class JobSpec(_message.Message):
    __slots__ = ("argv", "env", "cwd", "timeout", "name", "labels", "limits", "max_output_bytes", "on_output_limit", "isolation")
    class EnvEntry(_message.Message):
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
    ARGV_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    ON_OUTPUT_LIMIT_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    argv: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.ScalarMap[str, str]
    cwd: str
    timeout: _duration_pb2.Duration
    name: str
    labels: _containers.ScalarMap[str, str]
    limits: Limits
    max_output_bytes: int
    on_output_limit: OnOutputLimit
    isolation: Isolation
    def __init__(self, argv: _Optional[_Iterable[str]] = ..., env: _Optional[_Mapping[str, str]] = ..., cwd: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., max_output_bytes: _Optional[int] = ..., on_output_limit: _Optional[_Union[OnOutputLimit, str]] = ..., isolation: _Optional[_Union[Isolation, str]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("cpu_seconds", "cpu_throttled_seconds", "memory_bytes", "memory_peak_bytes", "tasks", "io_read_bytes", "io_write_bytes", "io_read_ops", "io_write_ops", "oom_kills", "tasks_refused", "cpu_pressure", "memory_pressure", "io_pressure")
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPU_THROTTLED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    IO_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    IO_WRITE_BYTES_FIELD_NUMBER: _ClassVar[int]
    IO_READ_OPS_FIELD_NUMBER: _ClassVar[int]
    IO_WRITE_OPS_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLS_FIELD_NUMBER: _ClassVar[int]
    TASKS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    CPU_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    IO_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    cpu_seconds: float
    cpu_throttled_seconds: float
    memory_bytes: int
    memory_peak_bytes: int
    tasks: int
    io_read_bytes: int
    io_write_bytes: int
    io_read_ops: int
    io_write_ops: int
    oom_kills: int
    tasks_refused: int
    cpu_pressure: Pressure
    memory_pressure: Pressure
    io_pressure: Pressure
    def __init__(self, cpu_seconds: _Optional[float] = ..., cpu_throttled_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., memory_peak_bytes: _Optional[int] = ..., tasks: _Optional[int] = ..., io_read_bytes: _Optional[int] = ..., io_write_bytes: _Optional[int] = ..., io_read_ops: _Optional[int] = ..., io_write_ops: _Optional[int] = ..., oom_kills: _Optional[int] = ..., tasks_refused: _Optional[int] = ..., cpu_pressure: _Optional[_Union[Pressure, _Mapping]] = ..., memory_pressure: _Optional[_Union[Pressure, _Mapping]] = ..., io_pressure: _Optional[_Union[Pressure, _Mapping]] = ...) -> None: ...

class Pressure(_message.Message):
    __slots__ = ("some_us", "full_us")
    SOME_US_FIELD_NUMBER: _ClassVar[int]
    FULL_US_FIELD_NUMBER: _ClassVar[int]
    some_us: int
    full_us: int
    def __init__(self, some_us: _Optional[int] = ..., full_us: _Optional[int] = ...) -> None: ...

class OutputTotals(_message.Message):
    __slots__ = ("stdout_bytes", "stderr_bytes", "dropped_bytes")
    STDOUT_BYTES_FIELD_NUMBER: _ClassVar[int]
    STDERR_BYTES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    stdout_bytes: int
    stderr_bytes: int
    dropped_bytes: int
    def __init__(self, stdout_bytes: _Optional[int] = ..., stderr_bytes: _Optional[int] = ..., dropped_bytes: _Optional[int] = ...) -> None: ...

class Ending(_message.Message):
    __slots__ = ("reason", "exit_code", "signal", "stopped_by", "message", "usage", "output")
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    STOPPED_BY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    reason: EndReason
    exit_code: int
    signal: int
    stopped_by: str
    message: str
    usage: Usage
    output: OutputTotals
    def __init__(self, reason: _Optional[_Union[EndReason, str]] = ..., exit_code: _Optional[int] = ..., signal: _Optional[int] = ..., stopped_by: _Optional[str] = ..., message: _Optional[str] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., output: _Optional[_Union[OutputTotals, _Mapping]] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "owner", "state", "spec", "limits", "effective_limits", "created_at", "started_at", "ended_at", "ending", "usage", "output", "conditions", "isolation", "limit_changes", "limit_changes_dropped")
    ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_LIMITS_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    LIMIT_CHANGES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_CHANGES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    id: str
    owner: str
    state: JobState
    spec: JobSpec
    limits: Limits
    effective_limits: _containers.RepeatedCompositeFieldContainer[EffectiveLimit]
    created_at: _timestamp_pb2.Timestamp
    started_at: _timestamp_pb2.Timestamp
    ended_at: _timestamp_pb2.Timestamp
    ending: Ending
    usage: Usage
    output: OutputTotals
    conditions: _containers.RepeatedScalarFieldContainer[str]
    isolation: Isolation
    limit_changes: _containers.RepeatedCompositeFieldContainer[LimitChange]
    limit_changes_dropped: int
    def __init__(self, id: _Optional[str] = ..., owner: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., spec: _Optional[_Union[JobSpec, _Mapping]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., effective_limits: _Optional[_Iterable[_Union[EffectiveLimit, _Mapping]]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ended_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ending: _Optional[_Union[Ending, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., output: _Optional[_Union[OutputTotals, _Mapping]] = ..., conditions: _Optional[_Iterable[str]] = ..., isolation: _Optional[_Union[Isolation, str]] = ..., limit_changes: _Optional[_Iterable[_Union[LimitChange, _Mapping]]] = ..., limit_changes_dropped: _Optional[int] = ...) -> None: ...

class JobFilter(_message.Message):
    __slots__ = ("owner", "states", "labels", "id_prefix")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ID_PREFIX_FIELD_NUMBER: _ClassVar[int]
    owner: str
    states: _containers.RepeatedScalarFieldContainer[JobState]
    labels: _containers.ScalarMap[str, str]
    id_prefix: str
    def __init__(self, owner: _Optional[str] = ..., states: _Optional[_Iterable[_Union[JobState, str]]] = ..., labels: _Optional[_Mapping[str, str]] = ..., id_prefix: _Optional[str] = ...) -> None: ...

class StartJobRequest(_message.Message):
    __slots__ = ("spec", "request_id")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    spec: JobSpec
    request_id: str
    def __init__(self, spec: _Optional[_Union[JobSpec, _Mapping]] = ..., request_id: _Optional[str] = ...) -> None: ...

class StartJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class StopJobRequest(_message.Message):
    __slots__ = ("job_id", "grace", "no_wait")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    NO_WAIT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    grace: _duration_pb2.Duration
    no_wait: bool
    def __init__(self, job_id: _Optional[str] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., no_wait: _Optional[bool] = ...) -> None: ...

class StopJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: JobFilter
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[_Union[JobFilter, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListJobsResponse(_message.Message):
    __slots__ = ("jobs", "next_page_token")
    JOBS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    next_page_token: str
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class StreamOutputRequest(_message.Message):
    __slots__ = ("job_id", "offset", "follow", "stream", "tail_lines", "since", "timestamps")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMPS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    offset: int
    follow: bool
    stream: OutputStream
    tail_lines: int
    since: _timestamp_pb2.Timestamp
    timestamps: bool
    def __init__(self, job_id: _Optional[str] = ..., offset: _Optional[int] = ..., follow: _Optional[bool] = ..., stream: _Optional[_Union[OutputStream, str]] = ..., tail_lines: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., timestamps: _Optional[bool] = ...) -> None: ...

class StreamOutputResponse(_message.Message):
    __slots__ = ("chunk", "heartbeat", "end")
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    chunk: OutputChunk
    heartbeat: OutputHeartbeat
    end: OutputEnd
    def __init__(self, chunk: _Optional[_Union[OutputChunk, _Mapping]] = ..., heartbeat: _Optional[_Union[OutputHeartbeat, _Mapping]] = ..., end: _Optional[_Union[OutputEnd, _Mapping]] = ...) -> None: ...

class OutputChunk(_message.Message):
    __slots__ = ("data", "offset", "stream", "time_us")
    DATA_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    offset: int
    stream: OutputStream
    time_us: int
    def __init__(self, data: _Optional[bytes] = ..., offset: _Optional[int] = ..., stream: _Optional[_Union[OutputStream, str]] = ..., time_us: _Optional[int] = ...) -> None: ...

class OutputHeartbeat(_message.Message):
    __slots__ = ("offset",)
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: int
    def __init__(self, offset: _Optional[int] = ...) -> None: ...

class OutputEnd(_message.Message):
    __slots__ = ("totals", "ending")
    TOTALS_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    totals: OutputTotals
    ending: Ending
    def __init__(self, totals: _Optional[_Union[OutputTotals, _Mapping]] = ..., ending: _Optional[_Union[Ending, _Mapping]] = ...) -> None: ...

class WatchJobsRequest(_message.Message):
    __slots__ = ("filter",)
    FILTER_FIELD_NUMBER: _ClassVar[int]
    filter: JobFilter
    def __init__(self, filter: _Optional[_Union[JobFilter, _Mapping]] = ...) -> None: ...

class WatchJobsResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class UpdateLimitsRequest(_message.Message):
    __slots__ = ("job_id", "limits")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    limits: Limits
    def __init__(self, job_id: _Optional[str] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ...) -> None: ...

class UpdateLimitsResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class DeleteJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class DeleteJobResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WhoAmIResponse(_message.Message):
    __slots__ = ("user", "role", "certificate_serial", "certificate_not_after", "server_version")
    USER_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_SERIAL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    user: str
    role: str
    certificate_serial: str
    certificate_not_after: _timestamp_pb2.Timestamp
    server_version: str
    def __init__(self, user: _Optional[str] = ..., role: _Optional[str] = ..., certificate_serial: _Optional[str] = ..., certificate_not_after: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., server_version: _Optional[str] = ...) -> None: ...
