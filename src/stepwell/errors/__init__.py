"""One tree of errors, each of which knows its exit code, its HTTP status and the next step for the user.

```
StepwellError                       .exit_code .http_status .hint
├─ UsageError                       the caller's mistake: nothing was written
│  ├─ UnknownRun (.run_id)          DuplicateRun (.run_id .expected .found)
│  ├─ RunHeld (.run_id .holder)     BadArguments (.problems)      MissingExtra (.extra)
│  ├─ FlowError (.file .line .column .problems), also a ValueError
│  └─ ValidationError ── NestedStepError                                  (also DurableExecutionsError)
├─ RunError (.run_id)               the end of a run, as the one who waits for it sees it
│  ├─ RunFailed (.key .attempts .error .cause)      RunCancelled (.reason)      RunTimedOut
│  └─ RunBlocked (.reason)          RollbackFailed (.failures)
├─ ReplayError                      record and code do not go together
│  ├─ NonDeterminismError (.key .expected .found .line) = NonDeterministicExecutionError   (also ExecutionError)
│  └─ PayloadError (.key) ── SerDesError                                  (also DurableExecutionsError)
├─ JournalError                     the store
│  └─ Fenced   JournalBusy (.holder)   SchemaTooOld, SchemaTooNew (.found .expected)   Corrupt
└─ DurableExecutionsError           durable functions
   ├─ ValidationError  SerDesError  InvalidStateError  PluginLoadError
   ├─ UnrecoverableError (.termination_reason)
   │  ├─ ExecutionError ── NonDeterminismError
   │  └─ InvocationError (.is_retryable()) ── StepInterruptedError, RetryableSerDesError
   └─ DurableOperationError (.error_type .data .stack_trace .attempts .key .run_id)
      ├─ StepError ── StepTimeoutError
      ├─ InvokeError  ChildContextError  WaitForConditionError  BatchCompletionError (.completion_reason)
      └─ CallbackError ── CallbackExternalError ── ApprovalRejected
                       ├─ CallbackTimeoutError
                       └─ CallbackSubmitterError
BaseException ── Suspend            a parked run leaving the user's frames; never crosses the API
UserWarning ── ReplayWarning
```
"""

from stepwell.errors._durable import (
    ApprovalRejected,
    BatchCompletionError,
    CallbackError,
    CallbackExternalError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    ChildContextError,
    DurableExecutionsError,
    DurableOperationError,
    ExecutionError,
    InvalidStateError,
    InvocationError,
    InvokeError,
    NestedStepError,
    NonDeterminismError,
    NonDeterministicExecutionError,
    PluginLoadError,
    RetryableSerDesError,
    SerDesError,
    StepError,
    StepInterruptedError,
    StepTimeoutError,
    TerminationReason,
    UnrecoverableError,
    ValidationError,
    WaitForConditionError,
)
from stepwell.errors._frames import format_frames
from stepwell.errors._journal import Corrupt, Fenced, JournalBusy, JournalError, SchemaTooNew, SchemaTooOld
from stepwell.errors._naming import class_ref, main_module, type_name
from stepwell.errors._object import ErrorObject
from stepwell.errors._record import ErrorRecord
from stepwell.errors._replay import PayloadError, ReplayError, ReplayWarning
from stepwell.errors._root import StepwellError
from stepwell.errors._run import (
    RollbackFailed,
    RunBlocked,
    RunCancelled,
    RunError,
    RunFailed,
    RunTimedOut,
)
from stepwell.errors._suspend import Suspend
from stepwell.errors._usage import (
    BadArguments,
    DuplicateRun,
    FlowError,
    MissingExtra,
    RunHeld,
    UnknownRun,
    UsageError,
)

__all__ = [
    "ApprovalRejected",
    "BadArguments",
    "BatchCompletionError",
    "CallbackError",
    "CallbackExternalError",
    "CallbackSubmitterError",
    "CallbackTimeoutError",
    "ChildContextError",
    "Corrupt",
    "DuplicateRun",
    "DurableExecutionsError",
    "DurableOperationError",
    "ErrorObject",
    "ErrorRecord",
    "ExecutionError",
    "Fenced",
    "FlowError",
    "InvalidStateError",
    "InvocationError",
    "InvokeError",
    "JournalBusy",
    "JournalError",
    "MissingExtra",
    "NestedStepError",
    "NonDeterminismError",
    "NonDeterministicExecutionError",
    "PayloadError",
    "PluginLoadError",
    "ReplayError",
    "ReplayWarning",
    "RetryableSerDesError",
    "RollbackFailed",
    "RunBlocked",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunHeld",
    "RunTimedOut",
    "SchemaTooNew",
    "SchemaTooOld",
    "SerDesError",
    "StepError",
    "StepInterruptedError",
    "StepTimeoutError",
    "StepwellError",
    "Suspend",
    "TerminationReason",
    "UnknownRun",
    "UnrecoverableError",
    "UsageError",
    "ValidationError",
    "WaitForConditionError",
    "class_ref",
    "format_frames",
    "main_module",
    "type_name",
]

# Records, pickles and tracebacks name the public place, so that a class may move between the private modules.
for _name in __all__:
    if isinstance(globals()[_name], type):
        globals()[_name].__module__ = __name__
del _name
