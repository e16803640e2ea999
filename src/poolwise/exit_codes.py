"""How a command ends: its exit code, and what it says of an error."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException

from poolwise.config import hydra_fault
from poolwise.errors import PoolwiseError


@contextmanager
def exit_codes() -> Iterator[None]:
    """End the process as the contract says: 0 done, 1 failed, 2 a wrong request, 130 and 143 stopped from outside."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would not hear Ctrl-C
    try:
        yield
    except HydraException as error:
        end(hydra_fault(error))
    except ValueError as error:
        if not str(error).startswith("Config group override"):  # Hydra's word for pooling=null
            raise
        end(hydra_fault(error))
    except PoolwiseError as error:
        end(error)
    except KeyboardInterrupt:
        sys.exit(130)


def end(error: PoolwiseError) -> NoReturn:
    """Say what went wrong, a line a fault, and end the process with its exit code."""
    for line in str(error).splitlines():
        print(f"{type(error).__name__}: {line}", file=sys.stderr)
    sys.exit(error.exit_code)


def _terminated(signum: int, frame: object) -> NoReturn:
    sys.exit(128 + signum)
