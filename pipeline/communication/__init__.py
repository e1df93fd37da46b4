"""The communicators that a model's forward is handed."""

from pipeline.communication.communicator import Communicator, Handle
from pipeline.communication.local import LOCAL, Done, LocalCommunicator
from pipeline.communication.skipped import SkippedCommunicator

__all__ = ["LOCAL", "Communicator", "Done", "Handle", "LocalCommunicator", "SkippedCommunicator"]
