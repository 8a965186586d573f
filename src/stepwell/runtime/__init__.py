"""The driver: lives of runs, scopes, leases, timers, threads, cancellation. It knows no door."""

from stepwell.runtime._api import Program
from stepwell.runtime._host import Host, load
from stepwell.runtime._inbox import CANCEL, encode_cancel
from stepwell.runtime._life import Life
from stepwell.runtime._live import Ending, current_life

__all__ = ["CANCEL", "Ending", "Host", "Life", "Program", "current_life", "encode_cancel", "load"]
