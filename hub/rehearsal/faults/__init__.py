"""Faults that the rehearsal Hub can be made to have, so that clients can be tried against them.

==================  ===============================================================
``script.py``       which requests a fault concerns, and the file form
``actions/``        what can happen, one file each, and their registry
``exchange.py``     a request in the hands of an action
``injection.py``    the faults in force, the record of requests, the middleware
``admin.py``        the endpoints that set them while the server runs
``remote.py``       the same from Python, in another process
==================  ===============================================================
"""

from fluxconv.hub.rehearsal.faults.actions import (
    ACTIONS,
    Action,
    BrokenXet,
    CorruptedFile,
    CutBody,
    ExpiredToken,
    HostileNames,
    HugeAnswer,
    LostReply,
    Redirect,
    ResetUpload,
    SlowHeaders,
    SneakedCommit,
    StalledAnswer,
    StalledBody,
    StalledUpload,
    Status,
    Trickle,
    WrongEtag,
)
from fluxconv.hub.rehearsal.faults.injection import Record
from fluxconv.hub.rehearsal.faults.remote import Injected
from fluxconv.hub.rehearsal.faults.script import Fault, Script, ScriptError, read_script

__all__ = [
    "ACTIONS",
    "Action",
    "BrokenXet",
    "CorruptedFile",
    "CutBody",
    "ExpiredToken",
    "Fault",
    "HostileNames",
    "HugeAnswer",
    "Injected",
    "LostReply",
    "Record",
    "Redirect",
    "ResetUpload",
    "Script",
    "ScriptError",
    "SlowHeaders",
    "SneakedCommit",
    "StalledAnswer",
    "StalledBody",
    "StalledUpload",
    "Status",
    "Trickle",
    "WrongEtag",
    "read_script",
]
