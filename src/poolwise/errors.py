"""What can go wrong, and the exit code it ends with.

Every message is one line: what is wrong, where, and how to mend it.

* PoolwiseError                anything below; catch this one to catch them all
  * RequestError        (2)    the request was wrong: one message, no traceback
    - ConfigError              a config key, choice or value is unknown, missing or impossible
    - DataError                the table cannot be read, or a cell in it is no label, count or exposure
    - DeviceError              the devices asked for are not there, or do not divide the chains
    - UnknownRunError          the tracking store holds no such run
    - ComparisonError          runs that cannot be compared: other data, or fewer than two (`comparison`)
    - ReproductionError        a logged run that cannot be judged or made again (`evidence`)
    - CheckoutError            its commit and patch cannot be had as files (`checkout`)
    - EnvironmentMissing       nor its distributions as an environment (`environment`)
  * FitError            (1)    the sampler could not start, or went non-finite
  * SweepError          (1)    some jobs of a sweep failed, or did not run
  * TrackingError       (1)    the tracking store cannot be used as asked
    - UnreachableError         it does not answer, or refuses

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
    """Anything that poolwise itself reports; `exit_code` is what a command ends with."""

    exit_code = 1


class RequestError(PoolwiseError):
    """The request was wrong: exit code 2, one message, no traceback."""

    exit_code = 2


class ConfigError(RequestError):
    """A config key, choice or value is unknown, missing or impossible."""


class DataError(RequestError):
    """The table cannot be read, or a cell in it is no label, count or exposure."""


class DeviceError(RequestError):
    """The devices asked for are not there, or do not divide the chains."""


class UnknownRunError(RequestError):
    """The tracking store holds no such run."""


class FitError(PoolwiseError):
    """The sampler could not start, or went non-finite."""

    exit_code = 1


class SweepError(PoolwiseError):
    """Some jobs of a sweep failed, or did not run."""

    exit_code = 1


class TrackingError(PoolwiseError):
    """The tracking store cannot be used as asked."""

    exit_code = 1


class UnreachableError(TrackingError):
    """The tracking store does not answer, or refuses."""
