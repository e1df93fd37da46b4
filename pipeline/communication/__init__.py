"""The communicators that a model's forward is handed."""

from pipeline.communication.blocking import BlockingCommunicator
from pipeline.communication.communicator import Communicator, Handle
from pipeline.communication.local import LOCAL, Done, LocalCommunicator
from pipeline.communication.skipped import SkippedCommunicator
from pipeline.communication.timed import CountingCommunicator, TimedCommunicator

__all__ = [
    "LOCAL",
    "BlockingCommunicator",
    "Communicator",
    "CountingCommunicator",
    "Done",
    "Handle",
    "LocalCommunicator",
    "SkippedCommunicator",
    "TimedCommunicator",
]
