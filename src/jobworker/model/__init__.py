"""The values that the library, the service and the client speak of.

Frozen, checked at birth, free of anything local to one machine.
"""

from jobworker.model.ending import Ending as Ending
from jobworker.model.ending import EndReason as EndReason
from jobworker.model.ids import JobId as JobId
from jobworker.model.ids import RequestId as RequestId
from jobworker.model.ids import UserName as UserName
from jobworker.model.job import Job as Job
from jobworker.model.job import JobFilter as JobFilter
from jobworker.model.job import JobPage as JobPage
from jobworker.model.job import LimitChange as LimitChange
from jobworker.model.limits import EffectiveLimit as EffectiveLimit
from jobworker.model.limits import Limits as Limits
from jobworker.model.limits import Resource as Resource
from jobworker.model.output import Chunk as Chunk
from jobworker.model.output import EndOfOutput as EndOfOutput
from jobworker.model.output import Heartbeat as Heartbeat
from jobworker.model.output import Stream as Stream
from jobworker.model.policy import JobPolicy as JobPolicy
from jobworker.model.spec import Isolation as Isolation
from jobworker.model.spec import JobSpec as JobSpec
from jobworker.model.spec import OnOutputLimit as OnOutputLimit
from jobworker.model.state import JobState as JobState
from jobworker.model.usage import OutputTotals as OutputTotals
from jobworker.model.usage import Pressure as Pressure
from jobworker.model.usage import Usage as Usage
