"""Exit codes of the commands, and how they print errors."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException

from poolwise.config import hydra_fault
from poolwise.errors import PoolwiseError
from poolwise.garbage import collect_rarely
from poolwise.text import lines_for


@contextmanager
def exit_codes() -> Iterator[None]:
    """Exit with 0 if done, 1 if failed, 2 if the request was wrong, 130 or 143 if stopped from outside."""
    collect_rarely()
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore Ctrl-C
    try:
        yield
    except HydraException as error:
        end(hydra_fault(error))
    except ValueError as error:
        if not str(error).startswith("Config group override"):  # Hydra's message for pooling=null
            raise
        end(hydra_fault(error))
    except PoolwiseError as error:
        end(error)
    except KeyboardInterrupt:
        sys.exit(130)


def end(error: PoolwiseError) -> NoReturn:
    """Print one line per fault and exit with the exit code of the error."""
    for line in str(error).splitlines():
        print(*lines_for(sys.stderr, f"{type(error).__name__}: {line}"), sep="\n", file=sys.stderr)
    sys.exit(error.exit_code)


def _terminated(signum: int, frame: object) -> NoReturn:
    sys.exit(128 + signum)
