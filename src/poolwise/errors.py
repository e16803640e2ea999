"""The exceptions of poolwise and their exit codes.

Every message is one line: what is wrong, where, and how to mend it.

* PoolwiseError                the base of all below
  * RequestError        (2)    the request was wrong: one message, no traceback
    - ConfigError              a config key, choice or value is unknown, missing or impossible
    - DataError                the table cannot be read, or a cell is not a valid label, count or exposure
    - DeviceError              the requested devices are not available, or do not divide the chains
    - UnknownRunError          the tracking store does not have the run
    - ComparisonError          the runs cannot be compared: different data, or fewer than two (`comparison`)
    - ReproductionError        a logged run cannot be judged or repeated (`recorded_run`)
    - CheckoutError            the commit and patch of a run cannot be checked out (`checkout`)
    - EnvironmentMissing       the environment of a run is not available (`environment`)
  * FitError            (1)    the sampler could not start, or gave non-finite values
  * SweepError          (1)    some jobs of a sweep failed, or did not run
  * TrackingError       (1)    the tracking store cannot be used as requested
    - UnreachableError         the tracking store does not answer, or refuses

``data/cookies.csv:17: chips is -2; counts must be integers >= 0. Correct the cell or drop the row.``
"""

__all__ = [
    "ConfigError",
    "DataError",
    "DeviceError",
    "FitError",
    "PoolwiseError",
    "RequestError",
    "SweepError",
    "TrackingError",
    "UnknownRunError",
    "UnreachableError",
]


class PoolwiseError(Exception):
    """Base of the errors that poolwise reports; `exit_code` is the exit code of the command."""

    exit_code = 1


class RequestError(PoolwiseError):
    """The request was wrong: exit code 2, one message, no traceback."""

    exit_code = 2


class ConfigError(RequestError):
    """A config key, choice or value is unknown, missing or impossible."""


class DataError(RequestError):
    """The table cannot be read, or a cell is not a valid label, count or exposure."""


class DeviceError(RequestError):
    """The requested devices are not available, or do not divide the chains."""


class UnknownRunError(RequestError):
    """The tracking store does not have the run."""


class FitError(PoolwiseError):
    """The sampler could not start, or gave non-finite values."""

    exit_code = 1


class SweepError(PoolwiseError):
    """Some jobs of a sweep failed, or did not run."""

    exit_code = 1


class TrackingError(PoolwiseError):
    """The tracking store cannot be used as requested."""

    exit_code = 1


class UnreachableError(TrackingError):
    """The tracking store does not answer, or refuses."""
